"""What a page says, by its elements."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"img", "meta", "br"}


class Page(HTMLParser):
    """Collects elements and texts, and fails on tags that do not match.

    Attributes:
        tags: (name, attributes) of all elements.
        text: of the whole page.
        texts: {name of an element: the text in each of them}.
        tables: {name for who cannot see it: rows of cells}.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.texts: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[tuple[str, list[str]]] = []
        self._name = ""
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._name = attributes["aria-label"] if attributes.get("role") == "region" else self._name
        if tag == "table":
            self.tables[self._name] = []
        if tag == "tr":
            self.tables[self._name].append([])
        if tag not in VOID:
            self._open.append((tag, []))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        name, texts = self._open.pop()
        assert name == tag
        content = "".join(texts)
        self.texts.setdefault(tag, []).append(content.strip())
        if tag in ("td", "th"):
            self.tables[self._name][-1].append(content)
        if self._open:
            self._open[-1][1].append(content)

    def handle_data(self, data):
        self.text += data
        if self._open:
            self._open[-1][1].append(data)

    def all(self, tag: str) -> list[dict]:
        """The attributes of all elements of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, table: str, name: str) -> dict[str, str]:
        """{column: cell} of the only row of that name."""
        head, *rows = self.tables[table]
        (found,) = (row for row in rows if row[0] == name)
        assert len(head) == len(found)
        return dict(zip(head[1:], found[1:]))
