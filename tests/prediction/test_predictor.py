"""`Predictor`: detections from a checkpoint alone, as the evaluation of its run has them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.modeling.backbone.resnet import BasicBlock
from PIL import Image

from dense_kd import Distiller, MethodSet, Predictor, Teacher
from dense_kd.checkpoint import CheckpointError, load_strictly, read_weights
from dense_kd.data.shapes import CLASSES
from dense_kd.detectors import GFL
from dense_kd.engine import RunError
from dense_kd.prediction import ImageError, PredictionError
from dense_kd.prediction.settings import described_by
from helpers.described import picture, small_run, trained, write_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    return write_checkpoint(folder / "model_final.pth", class_names=list(CLASSES))


@pytest.fixture(scope="module")
def predictor(weights) -> Predictor:
    return Predictor(weights, device="cpu")


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Of two sizes."""
    sizes = [(40, 60), (40, 60), (64, 48), (64, 48), (64, 48), (40, 60)]
    for index, (height, width) in enumerate(sizes):
        picture(height, width, seed=index).save(tmp_path / f"{index}.png")
    return [str(tmp_path / f"{index}.png") for index in range(len(sizes))]


def assert_same(prediction, expected, **tolerance) -> None:
    a, b = (getattr(p, "instances", p) for p in (prediction, expected))
    assert len(a) == len(b) > 0
    torch.testing.assert_close(a.scores, b.scores, **tolerance)
    torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, **tolerance)
    assert torch.equal(a.pred_classes, b.pred_classes)


def test_it_detects_what_the_evaluation_of_the_run_detects(predictor, images):
    cfg = small_run()
    mapper = instantiate(cfg.dataloader.test.mapper)
    with torch.no_grad():
        for path, prediction in zip(images, predictor.predict(images)):
            (output,) = trained(cfg)([mapper({"file_name": path})])
            assert_same(prediction, output["instances"], rtol=1e-4, atol=1e-3)
            assert prediction.file_name == path
            assert prediction.class_names == list(CLASSES)
            assert set(prediction.labels) <= set(CLASSES)


def test_many_images_are_what_each_is_alone_in_their_order(predictor, images):
    for size in (1, 2, 8):
        found = list(predictor.predict(iter(images), batch_size=size))
        assert [prediction.file_name for prediction in found] == images
        for path, prediction in zip(images, found):
            assert_same(prediction, predictor(path), rtol=1e-4, atol=1e-3)


def test_images_of_one_size_are_detected_on_together(predictor, images, monkeypatch):
    sizes, model = [], predictor.model
    monkeypatch.setattr(predictor, "model", lambda batch: sizes.append(len(batch)) or model(batch))
    list(predictor.predict(images, batch_size=2))
    assert sizes == [2, 2, 1, 1]
    assert next(predictor.predict(images, batch_size=2)).file_name == images[0]
    assert sizes[4:] == [2]  # no more than is asked for


def test_paths_pictures_and_arrays_are_one_image(weights, predictor, images):
    expected = predictor(images[0])
    opened = Image.open(images[0])
    bgr = np.asarray(opened)[:, :, ::-1]
    rgb = Predictor(weights, device="cpu", array_format="RGB")
    for given in (Path(images[0]), opened, bgr):
        assert_same(predictor(given), expected, rtol=0, atol=0)
    assert_same(rgb(np.asarray(opened)), expected, rtol=0, atol=0)
    assert predictor(bgr).file_name is None and predictor(opened).file_name == images[0]
    assert np.array_equal(predictor(bgr).image, np.asarray(opened))


def test_what_cannot_be_read_is_left_out_where_that_is_wanted(predictor, images, tmp_path):
    (tmp_path / "damaged.png").write_bytes(Path(images[0]).read_bytes()[:60])
    given = [images[0], str(tmp_path / "damaged.png"), images[1]]
    errors = []
    found = predictor.predict(given, on_error=lambda image, error: errors.append((image, error)))
    assert [prediction.file_name for prediction in found] == images[:2]
    assert [image for image, _ in errors] == given[1:2]

    found = predictor.predict(given)
    assert next(found).file_name == images[0]  # those before it are not lost
    with pytest.raises(ImageError, match="damaged.png"):
        next(found)


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.5, 0.99])
def test_a_threshold_replaces_the_detectors_own(weights, images, threshold):
    everything = trained(small_run())
    everything.test_score_thresh = threshold
    mapper = instantiate(small_run().dataloader.test.mapper)
    with torch.no_grad():
        expected = everything([mapper({"file_name": images[0]})])[0]["instances"]
    found = Predictor(weights, device="cpu", score_threshold=threshold)(images[0]).instances
    assert len(found) == (expected.scores >= threshold).sum()
    assert (found.scores >= threshold).all()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"score_threshold": 1.5}, "score_threshold=1.5"),
        ({"score_threshold": "high"}, "score_threshold='high'"),
        ({"array_format": "HSV"}, "array_format='HSV'"),
        ({"device": "nothing"}, "device='nothing' cannot be used here"),
        ({"device": "meta"}, "device='meta' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
    ],
)
def test_settings_that_are_none_are_refused(weights, options, said):
    with pytest.raises(PredictionError, match=said.replace("(", r"\(")):
        Predictor(weights, **options)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_batch_has_an_image_or_more(predictor, size):
    with pytest.raises(PredictionError, match="batch_size="):
        predictor.predict([], batch_size=size)


def test_a_distillation_is_its_student_with_or_without_a_config(tmp_path):
    cfg = small_run()
    student = cfg.model
    cfg.model = L(Distiller)(
        student=student,
        teacher=L(Teacher)(model=copy.deepcopy(student), weights="no_such_file.pth"),
        methods=L(MethodSet)(),
    )
    state = trained(small_run()).state_dict()
    written = write_checkpoint(tmp_path / "student.pth", small_run())
    content = torch.load(written, weights_only=True)
    content["model"] = {**state, "kd.pkd.weight": torch.ones(3)}
    torch.save(content, written)
    assert_same(
        Predictor(written, device="cpu")(picture()),
        Predictor(written, cfg, device="cpu")(picture()),
    )


def test_without_a_description_it_says_what_to_do_and_takes_the_config(weights, images, tmp_path):
    """As detectron2's own script leaves them, or version 0.1."""
    bare = str(tmp_path / "bare.pth")
    torch.save({"model": trained(small_run()).state_dict()}, bare)
    with pytest.raises(CheckpointError, match="does not describe its detector.*config="):
        Predictor(bare)
    expected = Predictor(weights, device="cpu")(images[0])
    LazyConfig.save(small_run(), str(tmp_path / "config.yaml"))
    for config in (small_run(), str(tmp_path / "config.yaml"), small_run().model):
        predictor = Predictor(bare, config, device="cpu")
        if config != small_run().model:  # which does not tell how images are resized
            assert_same(predictor(images[0]), expected)
        assert predictor.class_names == [f"class {index}" for index in range(5)]
        assert predictor.category_ids == [0, 1, 2, 3, 4]


def test_the_config_of_a_published_file_is_known():
    node, description = described_by(None, {"model": {}}, "mmdet://gfl_r50_fpn_1x_coco")
    assert node._target_ is GFL and description.class_names[0] == "person"
    assert description.image_format == "RGB"


@pytest.mark.parametrize(
    "config, error, said",
    [
        ("quickstart/gfl.py", CheckpointError, "does not fit GFL"),
        ("quickstart/studnet.py", RunError, "quickstart/student.py"),
        ({"train": {}}, RunError, "no 'model'"),
    ],
)
def test_a_config_that_is_none_or_of_another_detector_is_refused(weights, config, error, said):
    with pytest.raises(error, match=said):
        Predictor(weights, config, device="cpu")


def test_it_loads_everywhere_as_before(weights):
    model = trained(small_run())
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for load in (
        lambda: load_strictly(model, weights),
        lambda: DetectionCheckpointer(model).load(weights),
        lambda: model.load_state_dict(torch.load(weights, weights_only=True)["model"]),
        lambda: model.load_state_dict(read_weights(weights)),
    ):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()
        load()
        assert all(torch.equal(value, expected[k]) for k, value in model.state_dict().items())


def test_what_a_file_says_beside_what_is_allowed_is_refused(tmp_path):
    call = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    for entry in ({"model": call}, {"augmentations": [call]}):
        weights = write_checkpoint(tmp_path / "hostile.pth", **entry)
        with pytest.raises(CheckpointError, match="hostile.pth.*'os.mkdir'"):
            Predictor(weights)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "entry, said",
    [
        ({"model": {"a": 1}}, "describes a dict, no model"),
        ({"model": {"_target_": "torch.nn.ReLU"}}, "does not fit ReLU"),
        ({"model": None, "incomplete": "model.x is an object"}, "cannot be described: model.x is"),
        ({"augmentations": None, "incomplete": "own_mapper"}, "how images are resized.*own_mapper"),
        ({"augmentations": [{"_target_": "torch.nn.ReLU"}]}, "a ReLU, no augmentation"),
        ({"augmentations": ["flip"]}, "a str, no augmentation"),
        ({"class_names": ["one"]}, "trained for 1 classes"),
        ({"image_format": "XYZ"}, "image_format 'XYZ'"),
    ],
)
def test_a_description_that_does_not_hold_is_refused(tmp_path, entry, said):
    weights = write_checkpoint(tmp_path / "a.pth", **entry)
    with pytest.raises(CheckpointError, match=said):
        Predictor(weights, device="cpu")


def test_augmentations_can_be_given(tmp_path, images):
    weights = write_checkpoint(tmp_path / "a.pth", augmentations=None, incomplete="own_mapper")
    larger = Predictor(weights, device="cpu", augmentations=[T.Resize((96, 96))])
    own = Predictor(write_checkpoint(tmp_path / "b.pth", augmentations=[]), device="cpu")
    assert larger(images[0]).instances.image_size == (40, 60)
    assert not torch.equal(larger(images[0]).instances.scores, own(images[0]).instances.scores)


class OwnBlock(BasicBlock):
    pass


def test_classes_of_the_user_are_allowed_by_the_user_alone(tmp_path):
    cfg = small_run()
    for stage in cfg.model.backbone.bottom_up.stages:
        stage.block_class = OwnBlock
    weights = write_checkpoint(tmp_path / "a.pth", cfg)
    with pytest.raises(CheckpointError, match=r"OwnBlock.*none of the classes.*allow="):
        Predictor(weights)
    predictor = Predictor(weights, device="cpu", allow=[OwnBlock])
    assert isinstance(predictor.model.backbone.bottom_up.res2[0], OwnBlock)


def test_ids_of_the_dataset_are_kept_with_its_classes(tmp_path):
    names = list("abcde")
    weights = write_checkpoint(tmp_path / "a.pth", class_names=names, category_ids=[9, 7, 5, 3, 1])
    prediction = Predictor(weights, device="cpu")(picture())
    assert (prediction.class_names, prediction.category_ids) == (names, [9, 7, 5, 3, 1])


def test_augmentations_that_fail_are_named_with_their_file_and_the_image(tmp_path, images):
    call = {"_target_": "detectron2.data.transforms.ResizeShortestEdge", "short_edge_length": 32}
    call["max_size"] = "x"
    weights = write_checkpoint(tmp_path / "a.pth", augmentations=[call])
    with pytest.raises(PredictionError, match=r"pixels: the augmentations of .*a.pth, .* fail: Ty"):
        Predictor(weights, device="cpu")(images[0])
