"""A dataset of a few images, and catalogs as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data import generate_shapes


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """12 images to train on, 4 to validate and 4 to test, as COCO JSON."""
    root = tmp_path_factory.mktemp("own") / "shapes of ours"
    for part, count in (("train", 12), ("val", 4)):
        generate_shapes(root, part, count)
    # Other ids and names, as of another set.
    annotations = root / "annotations"
    content = json.loads((annotations / "instances_val.json").read_text())
    (annotations / "instances_test.json").write_text(json.dumps(content))
    (root / "test").mkdir()
    for image in (root / "val").glob("*.png"):
        (root / "test" / image.name).write_bytes(image.read_bytes())
    return root


@pytest.fixture(autouse=True)
def catalogs():
    """Datasets that a test registers are unknown after it."""
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
