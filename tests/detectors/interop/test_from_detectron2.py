"""detectron2's own configs turned into ours."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.meta_arch.retinanet import RetinaNet as StockRetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead as StockRetinaNetHead
from omegaconf import DictConfig
from torch import nn

from dense_kd import compat
from dense_kd.detectors import FCOS, DistanceCoder, FCOSHead, RetinaNet, TowerHead, from_detectron2
from helpers.builders import fcos_config, retinanet_config

needs_stock_fcos = pytest.mark.skipif(
    not compat.HAS_DETECTRON2_FCOS, reason="detectron2 0.5 has no FCOS"
)
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.py"
FCOS_CONFIG = "COCO-Detection/fcos_R_50_FPN_1x.py"


def shapes_of(config: DictConfig) -> dict[str, torch.Size]:
    """The state dict's keys and shapes."""
    return {name: value.shape for name, value in without_numbers(config).state_dict().items()}


def without_numbers(config):
    """The model, whose tensors have shapes alone: to draw its weights takes most of the time."""
    with torch.device("meta"):
        return instantiate(config)


@pytest.mark.slow
def test_the_zoos_retinanet_becomes_ours_with_the_same_state_dict():
    stock = model_zoo.get_config(RETINANET).model
    before = copy.deepcopy(stock)
    converted = from_detectron2(stock)
    assert stock == before and stock._target_ is StockRetinaNet
    assert stock.head._target_ is StockRetinaNetHead

    model = without_numbers(converted)
    assert type(model) is RetinaNet and type(model.head) is TowerHead
    assert model.num_classes == 80 and model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.num_anchors == 9 and model.head.depth == 4
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == shapes_of(stock)


@needs_stock_fcos
def test_the_zoos_fcos_becomes_ours_with_the_same_state_dict():
    stock = model_zoo.get_config(FCOS_CONFIG).model
    before = copy.deepcopy(stock)
    converted = from_detectron2(stock)
    assert stock == before and stock._target_ is compat.Detectron2FCOS

    model = without_numbers(converted)
    assert type(model) is FCOS and type(model.head) is FCOSHead
    assert model.num_classes == 80 and model.strides == [8, 16, 32, 64, 128]
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == shapes_of(stock)


def test_everything_but_the_targets_stays_as_it_is():
    config = retinanet_config(smooth_l1_beta=0.3, test_score_thresh=0.11)
    converted = from_detectron2(config)
    assert converted._target_ is RetinaNet and converted.head._target_ is TowerHead
    converted._target_, converted.head._target_ = config._target_, config.head._target_
    assert converted == config


@needs_stock_fcos
def test_the_linear_box_transform_becomes_the_distance_coder():
    config = fcos_config(
        box2box_transform=L(compat.Box2BoxTransformLinear)(normalize_by_size=False)
    )
    config._target_, config.head._target_ = compat.Detectron2FCOS, compat.Detectron2FCOSHead
    model = instantiate(from_detectron2(config))
    assert type(model.box2box_transform) is DistanceCoder
    assert model.box2box_transform.normalize_by_size is False
    assert model.box2box_transform.activation == "relu"


def test_targets_given_as_strings_are_found():
    config = retinanet_config()
    config._target_ = "detectron2.modeling.meta_arch.RetinaNet"
    config.head._target_ = "detectron2.modeling.meta_arch.retinanet.RetinaNetHead"
    converted = from_detectron2(config)
    assert converted._target_ is RetinaNet and converted.head._target_ is TowerHead
    assert type(instantiate(converted)) is RetinaNet


@pytest.mark.parametrize(
    "config",
    [from_detectron2(retinanet_config()), fcos_config(box2box_transform=L(DistanceCoder)())],
    ids=["RetinaNet", "FCOS"],
)
def test_a_model_that_is_ours_already_is_only_copied(config: DictConfig):
    converted = from_detectron2(config)
    assert converted == config and converted is not config
    converted.num_classes = 9
    assert config.num_classes == 4


def test_an_unknown_model_is_refused():
    with pytest.raises(TypeError, match="model is .*Linear.*RetinaNet"):
        from_detectron2(L(nn.Linear)(in_features=1, out_features=1))


def test_an_unknown_head_is_refused():
    config = retinanet_config()
    config.head = L(nn.Linear)(in_features=1, out_features=1)
    with pytest.raises(TypeError, match="model.head is .*Linear"):
        from_detectron2(config)


def test_a_model_that_is_built_already_is_refused():
    with pytest.raises(TypeError, match="model is .*RetinaNet.*expected a LazyConfig"):
        from_detectron2(instantiate(retinanet_config()))
    config = retinanet_config()
    config.head = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="model.head is .*Linear.*expected a LazyConfig"):
        from_detectron2(config)


@pytest.mark.parametrize("num_levels", [3, 5])
def test_the_shape_of_one_level_stands_for_all(num_levels: int):
    config = retinanet_config(num_levels=num_levels)
    config.head.input_shape = config.head.input_shape[:1]  # as the configs of detectron2 0.5 do
    converted = from_detectron2(config)
    assert len(config.head.input_shape) == 1
    assert instantiate(converted).head.num_levels == num_levels


def test_an_unknown_box_transform_of_fcos_is_refused():
    config = fcos_config(box2box_transform=L(nn.Linear)(in_features=1, out_features=1))
    with pytest.raises(TypeError, match="model.box2box_transform is .*Linear"):
        from_detectron2(config)
