"""BCCD with six images, where the package looks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog

from dense_kd.data import bccd_install
from helpers.small_bccd import register_at, small_bccd


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    return small_bccd()


@pytest.fixture
def target(files, tmp_path, monkeypatch) -> Iterator[Path]:
    """Where the small BCCD, the only one that is known, is put and registered."""
    monkeypatch.setattr(bccd_install, "DIGEST", bccd_install.digest_of(files))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    usual = MetadataCatalog.get("bccd_train").image_root
    register_at(None)
    yield tmp_path / "datasets" / "bccd"
    register_at(usual)
