"""The parts of a page, and that no text in them is read as HTML."""

from __future__ import annotations

from PIL import Image

from dense_kd.visualize.drawing import ComparedImage, Panel
from dense_kd.visualize.page import Figures, Folded, Note, Page, Pictures, Row, Section, Table
from helpers.html_pages import Page as Parsed

HOSTILE = "<b>&\"'"


def parsed(*parts, **texts) -> Parsed:
    page = Page(
        **{"title": "t", "headline": "h", "sections": [Section("s", parts)], "lead": [], **texts}
    )
    return Parsed(page.html())


def test_no_text_of_any_part_is_read_as_html():
    picture = Image.new("RGB", (8, 6))
    image = ComparedImage(HOSTILE, [Panel(HOSTILE, picture, HOSTILE)])
    table = Table(HOSTILE, (HOSTILE, HOSTILE), [Row(HOSTILE, [HOSTILE])])
    parts = [Note(HOSTILE), table, Figures([(HOSTILE, "<svg></svg>")]), Pictures([image])]
    page = parsed(*parts, Folded(HOSTILE, [Note(HOSTILE)]), title=HOSTILE, headline=HOSTILE,
                  lead=[HOSTILE])  # fmt: skip
    assert page.texts["title"] == page.texts["h1"] == page.texts["summary"] == [HOSTILE]
    assert page.tables == {HOSTILE: [[HOSTILE, HOSTILE], [HOSTILE, HOSTILE]]}
    assert page.texts["p"][1:] == [HOSTILE] * 3  # the lead, a note, and the folded one
    assert page.texts["figcaption"] == [HOSTILE, f"{HOSTILE} {HOSTILE}"]
    assert page.all("img")[0]["alt"] == f"{HOSTILE}, {HOSTILE}: {HOSTILE}"
    assert (page.all("img")[0]["width"], page.all("img")[0]["height"]) == ("8", "6")
    assert len(page.all("b")) == 1  # the title of the picture


def test_a_page_is_saved_with_names_of_files_that_are_no_unicode(tmp_path):
    page = Page(title="t", headline="caf\udce9.png", sections=[], lead=[])
    page.save(str(tmp_path / "page.html"))
    assert "caf\\udce9.png" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_table_scrolls_in_a_box_that_the_keyboard_reaches_and_names():
    page = parsed(Table("Metrics", ("run", "AP"), [Row("a", ["1.0"], "seed")]))
    (box,) = (each for each in page.all("div") if each.get("class") == "scroll")
    assert (box["tabindex"], box["role"], box["aria-label"]) == ("0", "region", "Metrics")
    assert [each["scope"] for each in page.all("th")] == ["col", "col", "row"]
    assert [each.get("class") for each in page.all("tr")] == [None, "seed"]
    assert page.row("Metrics", "a") == {"AP": "1.0"}


def test_a_table_without_a_head_has_none():
    page = parsed(Table("Settings", (), [Row("a", ["1"])]))
    assert not page.all("thead") and page.tables == {"Settings": [["a", "1"]]}


def test_what_is_folded_holds_its_parts_and_what_follows_stands_outside():
    page = parsed(Folded("more", [Note("inside"), Folded("and more", [Note("deep")])]), Note("out"))
    assert page.texts["summary"] == ["more", "and more"]
    outer = page.texts["details"][-1]
    assert "inside" in outer and "deep" in outer and "out" not in outer


def test_a_page_is_written_whole_and_follows_the_scheme_of_who_reads_it(tmp_path):
    page = Page("t", "h", [])
    page.save(str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text == page.html()
    (viewport,) = (each for each in Parsed(text).all("meta") if each.get("name") == "viewport")
    assert viewport["content"].startswith("width=device-width")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
