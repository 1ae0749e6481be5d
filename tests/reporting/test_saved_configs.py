"""Configs of runs are read without running code."""

import pytest
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec

from dense_kd.engine.state.stored_config import at
from dense_kd.reporting import ReportError
from dense_kd.reporting.saved_configs import read_config
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
        f"model:\n  a: !!python/object/apply:os.mkdir [{tmp_path}/made]\n"
        "  b: !!python/tuple [1, 2]\n"
        f"  c: !!python/object/new:{ShapeSpec.__module__}.ShapeSpec [64]\n"
        "train: {}\ndataloader: {}\n"
    )
    model = {"a": [f"{tmp_path}/made"], "b": [1, 2], "c": [64]}
    assert read_config(path)["model"] == model
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: [", "cannot be read as the config"),
        ("- a", "holds a list; expected"),
        ("MODEL: {}\nSOLVER: {}", "has no model and no dataloader and no train; expected a Lazy"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ReportError, match=f"config.yaml {said}"):
        read_config(tmp_path / "config.yaml")
