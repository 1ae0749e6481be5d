"""Predictors look at what is known of a run's dataset, which grows when a test loads it."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data.shapes import register_all_shapes


@pytest.fixture(autouse=True, scope="module")
def shapes_as_registered():
    for name in [name for name in DatasetCatalog if name.startswith("shapes_")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_all_shapes()
