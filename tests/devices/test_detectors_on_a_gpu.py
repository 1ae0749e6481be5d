"""Every detector on a GPU: nothing is made on the wrong device, and its cost is known."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from dense_kd import detectors
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from dense_kd.detectors import (
    DenseDetector,
    SwinTransformer,
    TorchvisionAnchorGenerator,
)
from helpers import device_costs
from helpers.builders import batch, tiny_gfl, tiny_retinanet
from helpers.detector_variants import VARIANTS
from helpers.tiny_backbones import mobilenet

EVERY_VARIANT = pytest.mark.parametrize("name", VARIANTS)


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def test_every_detector_of_the_package_has_a_variant():
    ours = {
        value
        for value in vars(detectors).values()
        if inspect.isclass(value) and issubclass(value, DenseDetector)
    }
    ours = {detector for detector in ours if not inspect.isabstract(detector)}
    assert ours == {type(variant.model()) for variant in VARIANTS.values()}


@EVERY_VARIANT
def test_it_trains_and_detects_there_and_costs_no_more_than_the_table_says(gpu, name):
    model = VARIANTS[name].model().to("cuda")
    device_costs.check("step", name, device_costs.of_step(gpu, model), gpu)
    assert all(isinstance(x.grad, Pretended) for x in model.parameters() if x.grad is not None)
    device_costs.check("inference", name, device_costs.of_inference(gpu, model), gpu)
    assert all(loss.isfinite() for loss in model.train()(batch("all empty")).values())


@EVERY_VARIANT
def test_detections_are_those_of_the_cpu_and_lie_on_the_gpu(gpu, name):
    model = VARIANTS[name].model(test_score_thresh=0.01).eval()
    twin = copy.deepcopy(model).to("cuda")
    with torch.no_grad():
        expected, found = (detector(batch()[:1])[0]["instances"] for detector in (model, twin))
    assert len(found) == len(expected) > 0
    assert all(isinstance(tensor, Pretended) for tensor in tensors_of(found))
    assert rows(found) == rows(expected)


def tensors_of(detections: Instances) -> list[torch.Tensor]:
    return [getattr(field, "tensor", field) for field in detections.get_fields().values()]


def rows(detections: Instances) -> list[list[float]]:
    """Every detection as numbers, ordered by them: equal scores come in any order on a GPU."""
    columns = [x.cpu().double().reshape(len(detections), -1) for x in tensors_of(detections)]
    return sorted(torch.cat(columns, dim=1).tolist())


def pyramid_of(body: Backbone) -> FPN:
    levels = LastLevelP6P7(16, 16, in_feature="p5")
    return FPN(body, ["res3", "res4", "res5"], 16, top_block=levels)


def with_swin() -> DenseDetector:
    swin = SwinTransformer(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
    return tiny_gfl(num_levels=5, backbone=pyramid_of(swin))


def with_mobilenet() -> DenseDetector:
    return tiny_gfl(num_levels=5, backbone=pyramid_of(mobilenet()))


def with_torchvisions_anchors() -> DenseDetector:
    anchors = L(TorchvisionAnchorGenerator)(
        sizes=[[2.0 * stride, 3.2 * stride] for stride in (8, 16, 32)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32],
    )
    return tiny_retinanet(anchor_generator=anchors)


@pytest.mark.parametrize("build", [with_swin, with_mobilenet, with_torchvisions_anchors])
def test_parts_of_a_detector_train_and_detect_there(gpu, build):
    model = build().to("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        sum(model(batch()[:1]).values()).backward()
        with torch.no_grad():
            found = model.eval()(batch()[:1])
    assert all(isinstance(x["instances"].scores, Pretended) for x in found)


def test_ground_truth_and_images_that_are_there_already_are_taken(gpu):
    model = tiny_retinanet().to("cuda")
    twin, inputs = copy.deepcopy(model), batch()
    for image in inputs:
        image["image"] = image["image"].to("cuda")
        image["instances"] = image["instances"].to("cuda")
    expected = model(batch())
    assert {key: loss.item() for key, loss in twin(inputs).items()} == {
        key: loss.item() for key, loss in expected.items()
    }


def test_what_a_training_run_logs_is_no_tensor_of_the_gpu(gpu):
    model = tiny_gfl(vis_period=1).to("cuda")
    with EventStorage() as storage:
        model(batch())
    assert storage.latest()["num_pos_anchors"][0] > 0
    ((name, picture, _),) = storage._vis_data
    assert "ground truth" in name and not isinstance(picture, Pretended)


def test_detections_go_to_the_cpu_for_an_evaluator(gpu):
    found = tiny_gfl().to("cuda").eval()(batch())[0]["instances"].to("cpu")
    assert isinstance(found, Instances) and type(found.scores) is torch.Tensor
    assert found.pred_boxes.tensor.detach().numpy().shape == (len(found), 4)
