"""Configs of runs are read without running code."""

import pytest
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec

from dense_kd.reporting import ReportError
from dense_kd.reporting.saved_configs import at, read_config
from helpers.configs import fresh


def test_what_a_training_writes_is_read_as_names_numbers_and_texts(tmp_path):
    cfg = fresh("quickstart/teacher.py")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    config = read_config(tmp_path / "config.yaml")
    stage = config["model"]["backbone"]["bottom_up"]["stages"][0]
    assert stage["block_class"] == "detectron2.modeling.backbone.resnet.BasicBlock"
    assert at(config, "train.max_iter") == cfg.train.max_iter
    assert at(config, "train.nothing.there", 3) == 3


def test_no_object_of_python_is_made(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "a: !!python/object/apply:os.mkdir [made]\nb: !!python/tuple [1, 2]\n"
        f"c: !!python/object/new:{ShapeSpec.__module__}.ShapeSpec [64]\n"
    )
    assert read_config(path) == {"a": ["made"], "b": [1, 2], "c": [64]}


@pytest.mark.parametrize(
    "text, said", [("a: [", "cannot be read as the config"), ("- a", "holds a list; expected")]
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ReportError, match=f"config.yaml {said}"):
        read_config(tmp_path / "config.yaml")
