"""A folder in which commands run as they are printed, on a few generated images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data import default_shapes_root, generate_shapes, register_shapes

SPLITS = {"shapes_train": ("train", 8), "shapes_val": ("val", 4)}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """The images, which are drawn once and copied."""
    root = tmp_path_factory.mktemp("drawn")
    for split, count in SPLITS.values():
        generate_shapes(root, split, count, image_size=(64, 64))
    return root


@pytest.fixture
def workspace(drawn, tmp_path, monkeypatch) -> Path:
    """The current folder, with photos and the dataset of the configs in ``quickstart`` below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    before = {name: MetadataCatalog.get(name).json_file for name in SPLITS}
    for folder in (default_shapes_root(), "photos"):
        shutil.copytree(drawn, folder)
    for name in SPLITS:
        _register(name, default_shapes_root())
    yield tmp_path
    for name, json_file in before.items():
        _register(name, str(Path(json_file).parent.parent))


def _register(name: str, root: str) -> None:
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    register_shapes(name, root, SPLITS[name][0])
