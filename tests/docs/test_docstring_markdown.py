"""Docstrings become Markdown: formulas stay as they are, roles, tables and lists do not."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that is run
import docstring_markdown as dm  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

DOCSTRING = """A ``code`` and a :class:`~a.b.Name`, as in::

        x = 1

            y = 2

    and :func:`.mod.f`.

    ====== ===
    what   T
    ====== ===
    a b    ``1``
    c|d
    ====== ===

    (a) one
        goes on;
    (b) two.

    Args:
        first, second: of both,
            on two lines.
        third: see :class:`Name`.

    Returns:
        (N, C): maps.
    """


def test_a_body_is_markdown():
    assert dm.as_markdown(dm.body_of(DOCSTRING)).split("\n\n") == [
        "A `code` and a `Name`, as in:",
        "```text\nx = 1",
        "y = 2\n```",
        "and `mod.f`.",
        "| what | T |\n| --- | --- |\n| a b | `1` |\n| c\\|d |  |",
        "- (a) one\n    goes on;\n- (b) two.",
    ]


def test_arguments_that_share_an_entry_have_its_text_each():
    assert dm.arguments_of(DOCSTRING) == {
        "first": "of both, on two lines.",
        "second": "of both, on two lines.",
        "third": "see :class:`Name`.",
    }
    assert dm.arguments_of("Args:\n    one: 1.\n    two: 2.") == {"one": "1.", "two": "2."}
    assert dm.arguments_of("Nothing.") == dm.arguments_of(None) == {}


def test_sections_stay_and_what_is_returned_is_text():
    text = dm.with_sections(DOCSTRING)
    assert dm.with_sections("Args:\n    one, two: 1.") == "Args:\n    one: 1.\n    two: 1."
    assert "\n\nArgs:\n    first: of both, on two lines.\n    second: of both" in text
    assert "\n    third: see `Name`." in text and "\n\n**Returns** (N, C): maps." in text
