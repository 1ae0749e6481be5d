"""JSON files of ours, read as far as they can be and written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import saving, write_text

__all__ = ["read_json", "without_nan", "write_json"]


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file; {} if it cannot be read."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file, whole or not at all; its folder is made where there is none.

    Raises:
        SaveError: it cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with saving(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def without_nan(content: Any) -> Any:
    """The same with None for what is undefined, as JSON has no NaN."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
