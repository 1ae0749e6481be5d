"""As if a package of an extra were not installed."""

from __future__ import annotations

import builtins
from typing import Any

import pytest


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports of ``package`` fail until the test ends, also where it is imported already."""
    importer = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == package:
            raise ImportError(f"No module named {package!r}")
        return importer(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
