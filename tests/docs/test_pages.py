"""The pages of docs/ hang together: all that can be said of them without building the site."""

from __future__ import annotations

import ast
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dense_kd import public
from dense_kd.listing import detectors as listed_detectors
from dense_kd.methods import method_classes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that is run
import docs_hooks  # noqa: E402
import docs_pages  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$|`[^`\n]*`", "", text, flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """As the site makes them of headings, and GitHub does, where both agree."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
        found |= {re.sub(r"\s", "-", words)} & {re.sub(r"[-\s]+", "-", words)}
    return found


def nav(entries: list) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from nav(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_nav_once():
    assert sorted(nav(SITE["nav"])) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert page.parent == ROOT or target.is_relative_to(DOCS), f"{link}: not on the site"
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_the_site_is_built_so_that_a_warning_fails():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^docs:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)[1]
    (build,) = re.findall(r"-m mkdocs build(.*)", recipe)
    assert build.split() == ["--strict"]  # with -q no warning is counted


def test_what_is_written_by_the_tool_is_current(capsys):
    assert docs_pages.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_not_current_is_named_and_mended(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{docs_pages.BEGIN}old\n{docs_pages.END}below\n")
    monkeypatch.setattr(docs_pages, "DOCS", tmp_path)
    monkeypatch.setattr(docs_pages, "pages", lambda: {"page.md": lambda: "new"})
    assert docs_pages.main(["--check"]) == 1 and "old" in page.read_text()
    assert f"make docs-pages`: {page}" in capsys.readouterr().out
    assert docs_pages.main([]) == docs_pages.main(["--check"]) == 0
    assert re.fullmatch(r"above\n<!--.*-->\n\nnew\n\n<!--.*-->\nbelow\n", page.read_text())


def test_every_method_and_detector_has_a_page_with_its_name_and_a_command_first():
    for folder, names in (
        ("methods", method_classes()),
        ("detectors", listed_detectors.names()),
    ):
        pages = {path.stem: path for path in (DOCS / folder).glob("*.md")}
        assert pages.keys() == {"index", *(name.lower() for name in names)}
        for name in names:
            lines = pages[name.lower()].read_text("utf-8").splitlines()
            assert lines[0].removeprefix("# ").replace(" ", "").lower() == name.lower()
            assert any(line.startswith("    dense-kd ") for line in lines[:12]), name


def options_on(page: str) -> Iterator[dict[str, object]]:
    """What a page says by hand, as `depth=2`, or `depth=2, align=False`."""
    for code in re.findall(r"`([^`\n]+)`", page.partition(docs_pages.BEGIN)[0]):
        found = re.findall(r"(\w+)=(\"[^\"]*\"|\([^)]*\)|[\w.-]+)", code)
        options = {name: ast.literal_eval(value) for name, value in found}
        options.pop("init_student", None)  # of the Distiller
        if options:
            yield options


@pytest.mark.parametrize("name", method_classes())
def test_options_that_a_methods_page_names_are_taken(name):
    kind = method_classes()[name]
    found = options_on((DOCS / "methods" / f"{name.lower()}.md").read_text("utf-8"))
    assert [kind(**options) for options in found]


def test_the_page_on_weights_has_options_of_every_method():
    rows = re.findall(
        r"^\| \[[\w ]+\]\(methods/(\w+)\.md\) \| (`[^|]+`) \|",
        (DOCS / "weights.md").read_text("utf-8"),
        flags=re.MULTILINE,
    )
    kinds = {name.lower(): kind for name, kind in method_classes().items()}
    assert dict(rows).keys() == kinds.keys()
    for name, cell in rows:
        assert set(re.findall(r"\w+", cell)) <= docs_pages.parameters_of(kinds[name]).keys(), name


def test_every_public_name_is_in_the_api():
    pages = " ".join(page.read_text("utf-8") for page in (DOCS / "api").glob("*.md"))
    shown = re.findall(r"^::: ([\w.]+)$", pages, flags=re.MULTILINE)
    assert len(shown) == len(set(shown))
    objects = [docs_pages.functools.reduce(getattr, path.split(".")[1:], root()) for path in shown]
    names = [getattr(public, name) for name in public.__all__ if name != "data"]
    assert [name for name in names if not any(name is each for each in objects)] == []


def root():
    import dense_kd

    return dense_kd


def test_messages_that_the_questions_quote_are_those_of_the_code():
    said = "\n".join(
        text
        for path in (ROOT / "projects").rglob("*.py")
        for text in texts_in(ast.parse(path.read_text("utf-8")))
    )
    quotes = re.findall(r"^> (.*)$", (DOCS / "faq.md").read_text("utf-8"), flags=re.MULTILINE)
    assert len(quotes) > 10
    for part in (part for quote in quotes for part in quote.split("…")):
        assert part.strip(" .;") in said, part


def texts_in(tree: ast.AST) -> Iterator[str]:
    """All strings; what is filled in is a space."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize(
    "page, found",
    [
        ('<script src="https://example.org/a.js">', 1),
        ("<img alt=x src=//example.org/a.png>", 1),
        ('<link rel="stylesheet" href="https://example.org/a.css">', 1),
        ("a { background: url('https://example.org/a.png') }", 1),
        ('<a href="https://example.org">a link</a>', 0),
        ('<link rel="canonical" href="https://example.org">', 0),
        ('<script src="assets/a.js"></script><img src="images/a.png">', 0),
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_found(page, found):
    assert len(docs_hooks.fetched(page)) == found
