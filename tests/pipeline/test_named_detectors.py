"""Detectors by name, made of the configs of the project."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.resnet import ResNet

from dense_kd import FCOS, GFL, named_detector
from dense_kd.pipeline.named_detectors import detector_names, find_detector

CLASSES = ["cat", "dog"]


def test_every_detector_goes_with_every_backbone():
    names = detector_names()
    detectors = ("atss", "autoassign", "ddod", "fcos", "gfl", "retinanet")
    backbones = ("r18", "r34", "r50", "r101", "x101", "mobilenetv2", "swin_t", "small")
    assert sorted(names) == sorted(f"{d}_{b}" for d in detectors for b in backbones)
    for name in names:
        assert find_detector(name).detector == name.partition("_")[0]


@pytest.mark.parametrize(
    "name, weights",
    [
        ("gfl_r101", "mmdet://gfl_r101_fpn_mstrain_2x_coco"),
        ("fcos_r50", "mmdet://fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco"),
        ("retinanet_x101", "mmdet://retinanet_x101_64x4d_fpn_mstrain_3x_coco"),
        ("gfl_r18", None),
        ("fcos_r18", None),
    ],
)
def test_published_weights_are_those_of_the_longest_training(name, weights):
    assert find_detector(name).published == weights
    start = named_detector(name, classes=CLASSES).train.init_checkpoint
    assert start == (weights or "torchvision://resnet18")


def test_the_model_is_for_the_own_classes():
    model = named_detector("gfl_r18", classes=CLASSES).model
    assert (model.num_classes, list(model.class_names)) == (2, CLASSES)


def test_a_detector_takes_a_backbone_that_it_has_no_config_for():
    cfg = named_detector("fcos_r18", classes=CLASSES)
    assert cfg.model.input_format == "RGB"  # of the backbone's weights
    model = instantiate(cfg.model)
    assert isinstance(model, FCOS) and isinstance(model.backbone.bottom_up, ResNet)
    assert model.class_names == CLASSES


def test_a_small_detector_may_have_a_width():
    widths = {
        name: instantiate(named_detector(name, classes=CLASSES).model).backbone.bottom_up.stem
        for name in ("gfl_small", "gfl_small4")
    }
    assert [stem.conv1.out_channels for stem in widths.values()] == [16, 4]


def test_from_scratch_nothing_is_frozen():
    cfg = named_detector("gfl_r18", classes=CLASSES, from_scratch=True)
    model = instantiate(cfg.model)
    assert isinstance(model, GFL) and cfg.train.init_checkpoint == ""
    assert all(parameter.requires_grad for parameter in model.parameters())
    norm = model.backbone.bottom_up.stem.conv1.norm
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.train().training


@pytest.mark.parametrize(
    "name, said",
    [
        ("glf_r50", "did you mean gfl_r50"),
        ("gfl_r99", "did you mean gfl_"),
        ("gfl", "a backbone of"),
        ("yolo_r50", "a detector of atss, autoassign, ddod, fcos, gfl, retinanet"),
        ("gfl_small0", "no detector"),
    ],
)
def test_a_name_that_is_none_is_refused_with_what_there_is(name, said):
    with pytest.raises(ValueError, match=said):
        find_detector(name)


@pytest.mark.parametrize("name", ["gfl/r101_2x_ms.py", "gfl/r101_2x_ms"])
def test_a_config_of_the_project_is_a_detector(name):
    found = find_detector(name)
    assert (found.detector, found.config) == ("gfl", "gfl/r101_2x_ms.py")
    assert found.published == "mmdet://gfl_r101_fpn_mstrain_2x_coco"


def test_a_config_file_is_a_detector(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dense_kd import get_config\nglobals().update(get_config('gfl/r18_1x.py'))"
    )
    model = named_detector(str(file), classes=CLASSES).model
    assert model.num_classes == 2
    with pytest.raises(ValueError, match="gfl/r18_1x"):
        find_detector("gfl/r18_1.py")


def test_the_config_of_a_distillation_is_no_detector():
    with pytest.raises(ValueError, match="not the config of a detector"):
        named_detector("quickstart/distill.py", classes=CLASSES)
