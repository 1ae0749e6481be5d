"""A detector in 8-bit integers is a file of its own, compared with the floats on the run's data."""

from __future__ import annotations

import json
import re

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from dense_kd import get_config
from dense_kd.checkpoint.description import ENTRY
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.engine.state.described_run import describe_run
from dense_kd.export import ExportError, export
from dense_kd.export.int8 import INT8_FILE, RuntimeDetector, calibration_images
from helpers.checked_runs import unregister

NAMES = {"train": "exported_train", "val": "exported_val"}


@pytest.fixture
def run(tmp_path):
    """A folder with weights and config, as of a run on eight images."""
    for split, number in (("train", 8), ("val", 4)):
        generate_shapes(tmp_path / "shapes", split, number, image_size=(64, 64))
        register_shapes(NAMES[split], tmp_path / "shapes", split)
    cfg = get_config("quickstart/student.py")
    cfg.dataloader.train.dataset.names = NAMES["train"]
    cfg.dataloader.test.dataset.names = NAMES["val"]
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    torch.nn.init.constant_(model.head.cls_score.bias, -1.0)
    folder = tmp_path / "run"
    folder.mkdir()
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    torch.save(
        {"model": model.state_dict(), ENTRY: describe_run(cfg).content()},
        folder / "model_final.pth",
    )
    yield folder
    unregister(*NAMES.values())


@pytest.mark.slow
def test_both_precisions_are_evaluated_and_the_integers_are_a_quarter_of_the_size(run, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    found = export(str(run), "onnx", out, int8=True, score_threshold=0.3)
    assert re.search(r"\n\| float32 +\|.*\n\| int8 +\|", found.verified)
    config = json.loads((out / "config.json").read_text())
    assert config["int8"].keys() == {"float32", "int8"}
    for each in config["int8"].values():
        assert "AP" in each["metrics"]["bbox"] and each["seconds"] > 0
    sizes = [(out / name).stat().st_size for name in ("model.onnx", INT8_FILE)]
    assert sizes[1] < 0.5 * sizes[0]
    inputs = onnxruntime.InferenceSession(str(out / INT8_FILE)).get_inputs()
    assert [x.name for x in inputs] == ["images", "sizes"]
    assert "8-bit integers" in (out / "README.md").read_text()


def test_images_for_the_ranges_are_spread_over_the_training_set(run):
    cfg = LazyConfig.load(str(run / "config.yaml"))
    assert len(calibration_images(cfg, lambda file: file, number=3)) == 3
    files = calibration_images(cfg, lambda file: file, number=100)
    assert len(files) == len(set(files)) == 8


def test_a_file_is_evaluated_as_a_detector_in_the_pixels_of_the_images():
    def run(images, sizes):
        assert images.shape == (1, 3, 64, 64) and sizes.tolist() == [[40, 60]]
        boxes = torch.tensor([[[0.0, 0, 30, 20], [0, 0, 0, 0]]])
        return [boxes, torch.tensor([[0.5, 0]]), torch.tensor([[2, 0]]), torch.tensor([1])]

    image = {"image": torch.zeros(3, 40, 60), "height": 80, "width": 120}
    [found] = RuntimeDetector(run, 32)([image])
    assert found["instances"].pred_boxes.tensor.tolist() == [[0, 0, 60, 40]]
    assert found["instances"].pred_classes.tolist() == [2]


def test_without_the_data_of_the_run_there_are_no_integers(run, tmp_path):
    (run / "config.yaml").unlink()
    with pytest.raises(ExportError, match="int8 needs the data of the run.*give the config"):
        export(str(run), "onnx", tmp_path / "out", int8=True)
    with pytest.raises(ExportError, match="int8 is of onnx with detections"):
        export(str(run), "torchscript", tmp_path / "out", int8=True)
