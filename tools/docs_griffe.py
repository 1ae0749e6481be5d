"""An extension of griffe, which reads docstrings for mkdocs: they become Markdown, as its pages."""

from __future__ import annotations

from typing import Any

import griffe
from docstring_markdown import with_sections


class Markdown(griffe.Extension):
    """Each docstring is rewritten before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = with_sections(obj.docstring.value)
