"""The ``config.yaml`` of a run, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..engine.state.stored_config import config_of_text
from .errors import ReportError

__all__ = ["read_config"]


_NEEDED = ("model", "dataloader", "train")


def read_config(path: Path) -> dict[str, Any]:
    """The config in containers, texts and numbers; what is called is a dotted name.

    Raises:
        ReportError: it cannot be read, or is no LazyConfig.
    """
    try:
        content = config_of_text(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ReportError(f"{path} cannot be read as the config of a run: {reason}") from error
    if not isinstance(content, dict):
        raise ReportError(
            f"{path} holds a {type(content).__name__}; expected the config of a run, as a training "
            "writes it"
        )
    missing = [name for name in _NEEDED if not isinstance(content.get(name), dict)]
    if missing:
        raise ReportError(
            f"{path} has no {' and no '.join(missing)}; expected a LazyConfig, which `dense-kd "
            "train` writes (runs of yacs configs cannot be reported on)"
        )
    return content
