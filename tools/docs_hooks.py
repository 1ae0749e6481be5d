"""Hooks of mkdocs: a site whose pages would fetch anything from elsewhere is not built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|manifest))[^>]*"""
    r"""\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:@import\s*|url\()["']?(?:https?:)?//[^"')\s]+"""
)


def fetched(page: str) -> list[str]:
    """What a page or a style sheet would fetch from elsewhere; links are not fetched."""
    return [match[0] for match in FETCHED.finditer(page)]


def on_post_build(config: Any) -> None:
    """Look into each page and each style sheet of the site."""
    from mkdocs.exceptions import PluginError

    site = Path(config["site_dir"])
    found = [
        f"{file.relative_to(site)}: {what[:120]}"
        for kind in ("*.html", "*.css")
        for file in sorted(site.rglob(kind))
        for what in fetched(file.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("pages must fetch nothing from elsewhere:\n" + "\n".join(found))
