"""Scripts of ``benchmarks/`` and ``tools/`` as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

ROOT = Path(__file__).parents[2]


def load_benchmark(name: str) -> ModuleType:
    """``benchmarks/<name>.py``, a new one each time."""
    return _load(ROOT / "benchmarks" / f"{name}.py", f"{name}_benchmark")


def load_tool(name: str) -> ModuleType:
    """``tools/<name>.py``, a new one each time."""
    return _load(ROOT / "tools" / f"{name}.py", f"{name}_tool")


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(path.parent), *sys.path]):  # as python does
        spec.loader.exec_module(module)
    return module
