"""What a docstring says first."""

from __future__ import annotations

import inspect
import re

# What ends a sentence is no abbreviation, and no point of a name or a number.
_END = re.compile(r"(?<!et al)(?<!e\.g)(?<!i\.e)[.:](?=\s|$)")
_MARKS = re.compile(r":\w+:`~?\.?([^`]+)`|``([^`]+)``")


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring on one line, without its full stop and its markup.

    A colon does not end it, for what follows is the half of it that counts.
    """
    paragraph = inspect.cleandoc(docstring or "").partition("\n\n")[0]
    text = _MARKS.sub(lambda found: found[1] or found[2], " ".join(paragraph.split()))
    for end in _END.finditer(text):
        if end[0] == ".":
            return text[: end.start()]
    return text
