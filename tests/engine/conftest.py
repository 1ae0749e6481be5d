"""The data of the runs that are checked or tried."""

from __future__ import annotations

import pytest

from helpers.checked_runs import register, unregister


@pytest.fixture(scope="package", autouse=True)
def data(tmp_path_factory):
    register(tmp_path_factory.mktemp("shapes"))
    yield
    unregister()
