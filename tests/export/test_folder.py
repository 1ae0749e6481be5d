"""The folder of an export runs by itself, and says what it is."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.layers import ShapeSpec
from PIL import Image

from dense_kd import get_config
from dense_kd.checkpoint import load_strictly
from dense_kd.checkpoint.description import ENTRY, Description
from dense_kd.cli import main
from dense_kd.description import describe
from dense_kd.errors import DenseKDError
from dense_kd.export import ExportError, export
from dense_kd.export.folder import resizing
from dense_kd.export.origin import origin_of
from dense_kd.export.pictures import drawn_pictures
from dense_kd.prediction import Predictor

CLASSES = ["circle", "square", "triangle", "star", "heart"]
RESIZE = L(T.ResizeShortestEdge)(short_edge_length=96, max_size=160, sample_style="choice")


def checkpoint(folder, model, augmentations=(), class_names=None):
    """A file as a run writes it, of a detector that finds much."""
    torch.manual_seed(0)
    detector = instantiate(model)
    torch.nn.init.constant_(detector.head.cls_score.bias, -1.0)
    description = Description(
        model=describe(model, "model"),
        class_names=list(class_names or CLASSES),
        augmentations=describe(list(augmentations), "augmentations"),
    )
    path = folder / "model_final.pth"
    torch.save({"model": detector.state_dict(), ENTRY: description.content()}, path)
    return str(path)


def small_fcos():
    return get_config("quickstart/student.py").model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("run"), small_fcos(), [RESIZE])


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "shapes.png"
    Image.fromarray(drawn_pictures()[0]).save(path)
    return str(path)


def detections_of_the_program(folder, picture, *, without=()):
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({list(without)!r}));"
        f"sys.argv = ['detect.py', {picture!r}];"
        f"runpy.run_path({str(folder / 'detect.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["detections"]


@pytest.mark.slow
def test_an_onnx_folder_detects_without_torch_what_the_predictor_detects(
    weights, picture, tmp_path, capsys
):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "onnx"
    main(["export", weights, "--to", "onnx", "--output", str(folder), "--images", picture])
    assert "onnx against torch, batches of 1 x 96 x 128, " in capsys.readouterr().out
    found = detections_of_the_program(
        folder, picture, without=["torch", "torchvision", "detectron2", "dense_kd"]
    )
    expected = Predictor(weights, device="cpu", score_threshold=0.3)(picture)
    assert [each["class"] for each in found] == expected.labels and found
    boxes = torch.tensor([each["box"] for each in found])
    torch.testing.assert_close(boxes, expected.instances.pred_boxes.tensor, rtol=0, atol=0.05)
    card = (folder / "README.md").read_text()
    for said in ("FCOS, ", "circle, square", "detect.py", "## Verified", "multiples of 32"):
        assert said in card
    again = instantiate(small_fcos())
    load_strictly(again, str(folder / "weights.pth"))


def test_a_torchscript_folder_detects_what_the_predictor_detects(weights, picture, tmp_path):
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "config.json").write_text('{"format": "onnx", "file": "model.onnx"}')
    (tmp_path / "ts" / "model.onnx").touch()
    export(weights, "torchscript", tmp_path / "ts", images=[picture], overwrite=True)
    assert not (tmp_path / "ts" / "model.onnx").exists()  # of the export that is replaced
    program = (tmp_path / "ts" / "detect.py").read_text()
    assert "import dense_kd" not in program and "import detectron2" not in program
    detect = runpy.run_path(str(tmp_path / "ts" / "detect.py"))["detect"]
    found = detect(picture)
    expected = Predictor(weights, device="cpu", score_threshold=0.3)(picture)
    assert [each["class"] for each in found] == expected.labels and found
    deep = np.asarray(Image.open(picture).convert("L")).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert detect(str(tmp_path / "deep.png"))  # whose values fit into 8 bits
    for name, pixels in (("a.png", deep * 257), ("b.tif", deep.astype(np.float32) / 255)):
        Image.fromarray(pixels).save(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} has pixels from .*cut off to 0 to 255"):
            detect(str(tmp_path / name))


@pytest.mark.slow
def test_a_retinanet_becomes_detectron2s_own(tmp_path, picture):
    model = get_config("retinanet/r50_1x_ms.py").model
    model.num_classes = len(CLASSES)
    model.backbone.bottom_up = get_config("bccd/gfl_r18.py").model.backbone.bottom_up
    model.backbone.bottom_up.out_features = ["res3", "res4", "res5"]
    for part in (model.backbone, model.backbone.top_block):
        part.out_channels = 16
    model.backbone.in_features = ["res3", "res4", "res5"]
    model.backbone.top_block.in_channels = 128
    model.head.conv_dims = [16]
    model.head.input_shape = [L(ShapeSpec)(channels=16)] * 5
    weights = checkpoint(tmp_path, model, [RESIZE])
    found = export(weights, "detectron2", tmp_path / "stock", images=[picture])
    assert found.verified.startswith("detectron2's own detector against this one, batches of 1 x")
    text = (tmp_path / "stock" / "config.py").read_text()
    assert "dense_kd" not in text.partition('"""\n')[2]
    stock = instantiate(LazyConfig.load(str(tmp_path / "stock" / "config.py")).model)
    assert type(stock).__module__ == "detectron2.modeling.meta_arch.retinanet"


def test_parts_that_detectron2_does_not_have_are_named(tmp_path, picture):
    model = get_config("bccd/gfl_r18.py").model
    weights = checkpoint(tmp_path, model, class_names=model.class_names)
    with pytest.raises(ExportError, match="detectron2 has no GFL of its own"):
        export(weights, "detectron2", tmp_path / "stock", images=[picture])
    assert not (tmp_path / "stock").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_final.pth"]


def test_weights_go_under_mmdetections_keys(tmp_path):
    model = get_config("bccd/gfl_r18.py").model
    weights = checkpoint(tmp_path, model, class_names=model.class_names)
    found = export(weights, "mmdet", tmp_path / "mmdet")
    content = torch.load(tmp_path / "mmdet" / "weights.pth", weights_only=True)
    assert content["meta"]["CLASSES"] == ("Platelets", "RBC", "WBC")
    again = instantiate(model)
    load_strictly(again, str(tmp_path / "mmdet" / "weights.pth"))
    for key, value in torch.load(weights, weights_only=True)["model"].items():
        assert again.state_dict()[key].equal(value), key
    assert "tensors were read again from mmdetection's keys" in found.verified


def test_a_folder_that_exists_is_not_written_over(weights, tmp_path):
    for content in (None, '{"format": "onnx", "file": "model.onnx"}'):
        if content:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ExportError, match="exists; give another folder, or --overwrite"):
            export(weights, "onnx", tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["model_final.pth", "config.json", "notes"])
def test_nothing_but_an_export_is_replaced(weights, tmp_path, name, overwrite):
    (tmp_path / name).write_text('{"file": "mine"}')
    with pytest.raises(ExportError, match="holds something else than an export"):
        export(weights, "onnx", tmp_path, overwrite=overwrite)
    with pytest.raises(ExportError, match="is a file, expected a folder"):
        export(weights, "onnx", tmp_path / name, overwrite=overwrite)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ExportError, match="is a link, expected a folder"):
        export(weights, "onnx", tmp_path / "link", overwrite=overwrite)
    assert (tmp_path / name).read_text() == '{"file": "mine"}'


def test_an_export_is_not_replaced_by_what_is_made_of_its_own_files(weights, tmp_path):
    (tmp_path / "config.json").write_text('{"format": "onnx", "file": "model.onnx"}')
    (tmp_path / "below").mkdir()
    shutil.copy(weights, tmp_path / "below" / "weights.pth")
    needed = str(tmp_path / "below" / "weights.pth")
    for source, images in ((needed, ()), (weights, (needed,))):
        with pytest.raises(ExportError, match="would remove .*weights.pth, which is read"):
            export(source, "mmdet", tmp_path, images=images, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", "config.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"to": "tflite"}, "to='tflite': expected one of onnx, torchscript"),
        ({"to": "mmdet", "outputs": "raw"}, "outputs='raw' is of graphs"),
        ({"to": "onnx", "score_threshold": 2}, "score_threshold=2: expected a number from 0 to 1"),
    ],
    ids=["format", "outputs", "threshold"],
)
def test_what_cannot_be_asked_for_is_refused(weights, tmp_path, arguments, said):
    with pytest.raises(ExportError, match=said):
        export(weights, output=tmp_path / "out", **arguments)


def test_a_folder_without_weights_names_the_runs_in_it(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model_final.pth").touch()
    with pytest.raises(DenseKDError, match="holds no weights.*it has runs in student"):
        origin_of(str(tmp_path))


def test_the_last_weights_of_a_run_are_taken(tmp_path):
    (tmp_path / "model_0000004.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    assert origin_of(str(tmp_path)).weights == str(tmp_path / "model_0000004.pth")


def test_the_resizing_of_test_images_is_written_down_or_refused():
    shortest = T.ResizeShortestEdge([800, 800], 1333, "choice")
    assert resizing([shortest]) == {"short_edge": 800, "long_edge": 1333}
    assert resizing([T.Resize((240, 320))]) == {"size": [240, 320]}
    assert resizing([]) is None
    assert resizing([T.ResizeShortestEdge(0, 1333)]) is None  # detectron2's "as they are"
    with pytest.raises(ExportError, match="test images go through RandomFlip"):
        resizing([T.RandomFlip()])
    with pytest.raises(ExportError, match="one of several sizes"):
        resizing([T.ResizeShortestEdge([640, 800], 1333, "choice")])
