"""JSON files of ours, read as far as they can be and written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import SaveError, saving, write_text
from .checkpoint.places import check_file

__all__ = ["check_json", "read_json", "without_nan", "write_json"]


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file; {} if it cannot be read."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_json(file: str | None, *keys: str) -> None:
    """Whether a command may write its JSON file, before it has anything to write.

    Args:
        file: to be written; None, if it is not asked for.
        keys: of which the content has one, whatever it is of. What has none is somebody else's,
            such as annotations, and is not replaced.

    Raises:
        SaveError: it cannot be written, or is somebody else's.
    """
    if file is None:
        return
    check_file(file)
    path = Path(file)
    if path.exists() and path.stat().st_size and not read_json(path).keys() & {*keys}:
        raise SaveError(
            f"the output {file} is there already, and this command has not written it (it has no "
            f"{' or '.join(map(repr, keys))}); give another name, or move it away"
        )


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
