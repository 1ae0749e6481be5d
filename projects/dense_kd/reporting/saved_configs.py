"""The ``config.yaml`` of a run, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import ReportError

__all__ = ["read_config"]


_NEEDED = ("model", "dataloader", "train")


class _Loader(yaml.SafeLoader):
    """Safe, and at ease with the classes, functions and tuples that detectron2 writes."""


def _plain(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return suffix.partition(":")[2] or loader.construct_scalar(node)


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def read_config(path: Path) -> dict[str, Any]:
    """The config in containers, texts and numbers; what is called is a dotted name.

    Raises:
        ReportError: it cannot be read, or is no LazyConfig.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
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
