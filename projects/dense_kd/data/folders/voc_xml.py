"""Reads one annotation file of Pascal VOC, whoever wrote it."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

_MAX_BYTES = 20 * 2**20


class XMLError(ValueError):
    """A file that is no XML, or holds what an annotation has no use for."""


@dataclass(frozen=True)
class VOCObject:
    """An ``object`` element as it is written; None where an entry is missing."""

    name: str | None
    corners: list[str | None] | None
    """xmin, ymin, xmax, ymax; None without a ``bndbox``."""


@dataclass(frozen=True)
class VOCFile:
    """The entries of an annotation file that a detector needs."""

    filename: str | None
    size: list[str | None]
    """width, height."""
    objects: list[VOCObject]


def read_voc_file(path: Path) -> VOCFile:
    """Read a file; nothing that it refers to is opened, and it cannot grow.

    Args:
        path: an XML file.

    Raises:
        XMLError: it is no XML, has a document type or entities of its own, another root element
            than ``annotation``, or 20 MiB.
    """
    if not os.path.isfile(path):
        raise XMLError("is not a file")
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise XMLError(f"cannot be read: {error.strerror or error}") from error
    if data is None:
        raise XMLError("is larger than 20 MiB")
    root = _parse(data)
    if root.tag != "annotation":
        raise XMLError(f"has the root element {root.tag[:40]!r}; expected 'annotation'")
    objects = []
    for element in root.findall("object"):
        box = element.find("bndbox")
        corners = [_text(box, key) for key in ("xmin", "ymin", "xmax", "ymax")]
        objects.append(VOCObject(_text(element, "name"), None if box is None else corners))
    size = root.find("size")
    return VOCFile(_text(root, "filename"), [_text(size, "width"), _text(size, "height")], objects)


def _parse(data: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise XMLError("declares a document type; annotations have none, and it could name files")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except XMLError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise XMLError(f"is no valid XML ({error})") from error


def _text(element: ElementTree.Element | None, key: str) -> str | None:
    found = element.find(key) if element is not None else None
    text = (found.text or "").strip() if found is not None else ""
    return text or None
