"""What an import brings with it, in an interpreter that has imported nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dense_kd
from dense_kd import public

CODE = """
import sys
import dense_kd
assert not {"torch", "detectron2"} & set(sys.modules)
import dense_kd.detectors
from detectron2.utils.file_io import PathManager
for name in ("mmdet://", "torchvision://"):  # that configs of detectors start from
    assert type(PathManager._PathManager__get_path_handler(name)).__module__ == "dense_kd.checkpoint.zoo"
assert "dense_kd.public" not in sys.modules
from dense_kd import *
from detectron2.data import DatasetCatalog
assert Distiller is dense_kd.Distiller and "shapes_train" in DatasetCatalog.list()
"""  # noqa: E501


@pytest.mark.slow
def test_names_are_imported_when_one_is_asked_for():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_found_and_listed():
    assert set(public.__all__) <= set(dir(dense_kd))
    for name in public.__all__:
        assert getattr(dense_kd, name) is getattr(public, name)
    assert dense_kd.engine.checks.RunError is not None


@pytest.mark.parametrize("name", ["BKCD", "__path_of_nothing__", "nothing"])
def test_a_name_that_is_none_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(dense_kd, name)
