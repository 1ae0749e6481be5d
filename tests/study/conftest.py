"""The small study, as a file, and its images."""

from __future__ import annotations

import pytest
import yaml

from dense_kd.data import generate_shapes, register_shapes
from helpers.checked_runs import unregister
from helpers.small_study import CONTENT

SPLITS = {"train": 4, "one": 3, "two": 2}


@pytest.fixture(scope="package")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    for split, number in SPLITS.items():
        generate_shapes(root, split, number, image_size=(64, 64))
        register_shapes(f"study_{split}", root, split)
    yield root
    unregister(*(f"study_{split}" for split in SPLITS))


@pytest.fixture(scope="session")
def study_file(tmp_path_factory):
    """Writes a study whose entries are :data:`CONTENT` and what is given."""

    def write(**entries):
        file = tmp_path_factory.mktemp("studies") / "small.yaml"
        file.write_text(yaml.safe_dump({**CONTENT, **entries}, sort_keys=False))
        return str(file)

    return write
