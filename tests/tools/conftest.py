"""The data of the runs of the script."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data import generate_shapes, register_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Overrides that train on eight small images and test on four."""
    root = tmp_path_factory.mktemp("shapes")
    for name, split, count in (("tiny_train", "train", 8), ("tiny_val", "val", 4)):
        generate_shapes(root, split, count, image_size=(64, 64))
        register_shapes(name, root, split)
    yield [
        "dataloader.train.dataset.names=tiny_train",
        "dataloader.test.dataset.names=tiny_val",
        "dataloader.train.total_batch_size=2",
        "train.log_period=1",
    ]
    for name in ("tiny_train", "tiny_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
