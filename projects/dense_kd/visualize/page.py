"""An HTML page that needs no other file, from its parts and the templates beside this module."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Union

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..checkpoint import write_text
from .drawing import ComparedImage

__all__ = [
    "Figures",
    "Folded",
    "Note",
    "Page",
    "Part",
    "Pictures",
    "Row",
    "Section",
    "Table",
    "title_of",
]

_BEGINNING = 4096
"""Letters of a page that its title is in."""


@dataclass(frozen=True)
class Note:
    """A paragraph; ``kind`` is "soft" for what explains, "warning" for what limits the page."""

    text: str
    kind: str = "soft"
    template: ClassVar[str] = "note.html"


@dataclass(frozen=True)
class Row:
    """A line of a table; ``kind`` is "", "seed" (one of several) or how it is marked."""

    name: str
    cells: Sequence[str]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Texts in columns, in a box that scrolls by itself where it is wider than the page.

    Attributes:
        name: for who cannot see it.
        head: a text for each column, that of the names first; () is none.
        rows: of it.
        kind: "settings" for long texts, which are broken, "wide" for some that are so in print.
    """

    name: str
    head: Sequence[str]
    rows: Sequence[Row]
    kind: str = ""
    template: ClassVar[str] = "table.html"


@dataclass(frozen=True)
class Figures:
    """(title, inline SVG) side by side; the SVG is trusted."""

    figures: Sequence[tuple[str, str]]
    template: ClassVar[str] = "figures.html"


@dataclass(frozen=True)
class Pictures:
    """A row of pictures for each image; ``wide`` ones stand below each other, and scroll."""

    images: Sequence[ComparedImage]
    wide: bool = False
    template: ClassVar[str] = "pictures.html"


@dataclass(frozen=True)
class Folded:
    """Parts that are shown when the summary is chosen."""

    summary: str
    parts: Sequence[Part]
    template: ClassVar[str] = "folded.html"


Part = Union[Note, Table, Figures, Pictures, Folded]
"""What a section is made of."""


@dataclass(frozen=True)
class Section:
    """Parts under a heading."""

    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """All of a page.

    Attributes:
        title: of the window.
        headline: what happened, in a sentence.
        sections: in their order.
        lead: paragraphs below the headline.
    """

    title: str
    headline: str
    sections: Sequence[Section]
    lead: Sequence[str] = field(default=())

    def html(self) -> str:
        """The page as text; all texts in it are escaped."""
        return _environment().get_template("page.html").render(page=self)

    def save(self, path: str) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())


def title_of(path: str) -> str:
    """The title of a page of :class:`Page` in a file, "" if there is none."""
    with open(path, encoding="utf-8", errors="replace") as file:
        found = re.search("<title>(.*)</title>", file.read(_BEGINNING))
    return html.unescape(found[1]) if found else ""


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = _jpeg
    return environment


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    # A tenth of the size of a PNG: the images are full of noise. One that is read from a JPEG file
    # loses nothing more.
    kept = picture.format == "JPEG"
    picture.save(buffer, format="JPEG", quality="keep" if kept else 88)
    return base64.b64encode(buffer.getvalue()).decode()
