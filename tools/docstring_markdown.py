"""Docstrings as Markdown, for the pages that tools/docs_pages.py and mkdocs make of them.

The docstrings have ``code``, roles (:class:`Name`), indented formulas, lists and simple tables.
"""

from __future__ import annotations

import inspect
import re
import textwrap

_ROLE = re.compile(r":\w+:`(~?)([^`]+)`")
_CODE = re.compile(r"``([^`]+)``")
_BORDER = re.compile(r"=+(?: +=+)+")
_LETTER = re.compile(r"\([a-z]\) ")
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\**\w+(?:,\s+\**\w+)*):\s*", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """The paragraphs of a docstring; what is indented becomes a block of text as it is.

    Args:
        docstring: without sections such as ``Args:``, see :func:`body_of`.
    """
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if paragraph.startswith(" "):
            text = textwrap.dedent(paragraph)
            if blocks and blocks[-1].startswith("```text\n"):  # a formula of several parts
                blocks[-1] = f"{blocks[-1][:-4]}\n\n{text}\n```"
            else:
                blocks.append(f"```text\n{text}\n```")
        elif _BORDER.fullmatch(paragraph.partition("\n")[0]):
            blocks.append(_table(paragraph.splitlines()))
        else:
            blocks.append(inline(_as_list(paragraph)))
    return "\n\n".join(blocks)


def inline(text: str) -> str:
    """Roles and double backticks as Markdown has them."""

    def name(found: re.Match[str]) -> str:
        return f"`{found[2].rpartition('.')[2] if found[1] else found[2].lstrip('.')}`"

    return _CODE.sub(r"`\1`", _ROLE.sub(name, re.sub(r"::$", ":", text)))


def body_of(docstring: str | None) -> str:
    """What stands before the first section, as ``Args:``."""
    return _SECTION.split(_cleaned(docstring or ""))[0]


def arguments_of(docstring: str | None) -> dict[str, str]:
    """{argument: what its entry under ``Args:`` says, on one line}, in the order of the entries.

    Arguments that share an entry have its text, each.
    """
    text = _cleaned(docstring or "")
    section = re.search(r"^Args:\n((?: +.*\n?|\n)+)", text, flags=re.MULTILINE)
    if section is None:
        return {}
    entries = textwrap.dedent(section[1])
    parts = _ENTRY.split(entries)[1:]
    return {
        name.strip(): " ".join(description.split())
        for names, description in zip(parts[::2], parts[1::2])
        for name in names.split(",")
    }


def with_sections(docstring: str) -> str:
    """A whole docstring in Markdown; entries that several arguments share become one of each.

    Args:
        docstring: with sections in Google's style, of which ``Args:`` and the like stay.
    """
    parts = _SECTION.split(_cleaned(docstring))
    text = [as_markdown(body_of(docstring))] if parts[0].strip() else []
    sections = []
    for name, content in zip(parts[1::2], parts[2::2]):
        if name in ("Returns", "Yields"):  # whose colons are no types
            text.append(f"**{name}** {inline(' '.join(content.split()))}")
            continue
        entries = arguments_of(f"Args:\n{content}")
        lines = [f"    {entry}: {inline(said)}" for entry, said in entries.items()]
        sections.append("\n".join([f"{name}:", *lines]))
    return "\n\n".join([*text, *sections])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown; lines in its cells go on one line, and bars in them are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cleaned(docstring: str) -> str:
    """Without the margin; one that begins with a section may have been cleaned before."""
    return inspect.cleandoc(f"\n{docstring}" if _SECTION.match(docstring) else docstring)


def _table(lines: list[str]) -> str:
    """A simple table of reStructuredText, whose columns its first line shows."""
    starts = [found.start() for found in re.finditer(r"=+", lines[0])]
    spans = list(zip(starts, [*starts[1:], None]))
    rows = [
        [inline(line[first:last].strip()) for first, last in spans]
        for line in lines
        if not _BORDER.fullmatch(line)
    ]
    return table(rows[0], rows[1:])


def _as_list(paragraph: str) -> str:
    """Points (a), (b), ... as a list, and further lines of a point where Markdown wants them."""
    if _LETTER.match(paragraph):
        paragraph = re.sub(r"^(?=\([a-z]\) )", "- ", paragraph, flags=re.MULTILINE)
    if not re.match(r"[-*] ", paragraph):
        return paragraph
    return re.sub(r"^ +", "    ", paragraph, flags=re.MULTILINE)
