"""What the result of a training depends on, so that one with another result is not taken for it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig

from .. import compat

__all__ = ["cores", "environment", "result_settings"]

_PACKAGE = Path(__file__).parents[1]
# What they decide is in the config.
_WITHOUT_EFFECT = (
    *("cli/", "demo/", "pipeline/", "prediction/", "visualize/"),
    *("study/evidence/", "study/running.py"),
)


def result_settings(config: Any) -> dict[str, Any]:
    """Config, code and versions, in JSON types; the data is not in it.

    Args:
        config: a LazyConfig, without what differs from run to run.
    """
    return {"config": _text(config), "code": _code_digest(), "versions": compat.versions()}


def environment(threads: int) -> dict[str, str]:
    """Variables of the process of a training with so many threads, which imports this package."""
    path = [str(_PACKAGE.parent), *filter(None, [os.getenv("PYTHONPATH")])]
    return {
        # Number of threads of torch's operators.
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # How often a waiting thread looks before it sleeps. To wake it takes longer than most
        # operations of a small detector; one that looks for ever takes a core of others.
        "GOMP_SPINCOUNT": os.getenv("GOMP_SPINCOUNT", "20000"),
        "PYTHONPATH": os.pathsep.join(path),
    }


def cores() -> int:
    """Of the machine, as far as a container or a scheduler leaves them to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(config: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        LazyConfig.save(config, str(path))
        return path.read_text()


def _code_digest() -> str:
    """Of the code that a training runs, so that a changed loss is not compared with an old one."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if not name.startswith(_WITHOUT_EFFECT):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
