"""The data of the checked runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from runs import register, unregister  # noqa: E402


@pytest.fixture(scope="package", autouse=True)
def data(tmp_path_factory):
    register(tmp_path_factory.mktemp("shapes"))
    yield
    unregister()
