"""Detectors with mmdetection's weights against what mmdetection computes: see golden/README.md."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from dense_kd import Teacher
from dense_kd.checkpoint import load_strictly, read_weights
from dense_kd.detectors import AutoAssign, DenseDetector, FrozenStatisticsBatchNorm, RetinaNet
from dense_kd.outputs import DensePass
from helpers.builders import assert_close, golden
from helpers.gradients import Nudge, assert_gradients_close
from helpers.mmdet_models import (
    CONFIGS,
    LEVELS,
    checkpoint_path,
    detector,
    fpn,
    resnet50,
    stored_images,
)

# Ten times what was measured: 4.9e-7 of features, 2.2e-7, 1.3e-6, 8.3e-7 and 1.2e-4 pixels; and
# 3.7e-6 of outputs.
FEATURE_NOISE, LOSS_NOISE, GRADIENT_NOISE, SCORE_NOISE, BOX_NOISE = 5e-6, 3e-6, 2e-5, 9e-6, 2e-3
OUTPUT_NOISE = 4e-5


def size_major(x: Tensor, dim: int, size: int = 1) -> Tensor:
    """The (A, ``size``) of dimension ``dim`` from mmdetection's order to detectron2's."""
    dim %= x.dim()
    split = x.unflatten(dim, (-1, 3, 3, size))  # rows of (ratio, scale, size)
    return split.transpose(dim + 1, dim + 2).flatten(dim, dim + 3)


@dataclass
class Loaded:
    """A detector with mmdetection's weights, and mmdetection's values."""

    name: str
    model: DenseDetector
    data: dict[str, Tensor]

    def run(self) -> DensePass:
        return self.model.run(stored_images(self.name))


@pytest.fixture(params=list(CONFIGS))
def loaded(request) -> Loaded:
    teacher = Teacher(detector(request.param), checkpoint_path(request.param))
    teacher.load()
    return Loaded(request.param, teacher.model, golden(f"{request.param}_data"))


@torch.no_grad()
def test_features_equal_the_reference(loaded: Loaded):
    images = stored_images(loaded.name)
    stages = loaded.model.backbone.bottom_up(images.tensor)
    levels = loaded.model.backbone(images.tensor)
    bottom_up = loaded.model.backbone.bottom_up
    stages["res2"] = bottom_up.res2(bottom_up.stem(images.tensor))[:, :, ::4, ::4]
    for i in (2, 3, 4, 5):
        assert_close(stages[f"res{i}"], loaded.data[f"backbone/C{i}"], FEATURE_NOISE, f"C{i}")
    for name in LEVELS:
        assert_close(levels[name], loaded.data[f"fpn/{name.upper()}"], FEATURE_NOISE, name)


@torch.no_grad()
def test_head_outputs_equal_the_reference(loaded: Loaded):
    features = loaded.model.backbone(stored_images(loaded.name).tensor)
    outputs, _ = loaded.model.head.run([features[name] for name in LEVELS])
    for level in range(5):
        logits, boxes = outputs.logits[level], (outputs.deltas or outputs.distribution)[level]
        expected = {
            kind: loaded.data[f"head/{kind}/l{level}"]
            for kind in ("cls", "reg", "ctr", "iou", "obj")
            if f"head/{kind}/l{level}" in loaded.data
        }
        if isinstance(loaded.model, RetinaNet):
            expected["cls"] = size_major(expected["cls"], 1, loaded.model.num_classes)
            expected["reg"] = size_major(expected["reg"], 1, 4)
        else:
            # mmdetection's head of FCOS applies the function that our code of boxes does.
            activation = getattr(loaded.model.box2box_transform, "activation", "identity")
            boxes = {"exp": torch.exp, "relu": torch.relu}.get(activation, lambda x: x)(boxes)
        if isinstance(loaded.model, AutoAssign):  # there it gives pixels
            boxes = boxes * loaded.model.strides[level]
        assert bool(outputs.quality) == (len(expected) == 3)
        for kind in {"ctr", "iou", "obj"} & expected.keys():
            assert_close(outputs.quality[level], expected[kind], OUTPUT_NOISE, f"{kind} {level}")
        assert_close(logits, expected["cls"], OUTPUT_NOISE, f"class, level {level}")
        assert_close(boxes, expected["reg"], OUTPUT_NOISE, f"box, level {level}")


@torch.no_grad()
def test_detections_equal_the_reference(loaded: Loaded):
    for image, found in enumerate(loaded.model.inference(loaded.run())):
        expected = {
            key: loaded.data[f"pred/img{image}/{key}"] for key in ("bboxes", "scores", "labels")
        }
        assert_close(found.scores, expected["scores"], SCORE_NOISE, f"scores, image {image}")
        assert (found.pred_boxes.tensor - expected["bboxes"]).abs().max() < BOX_NOISE
        assert torch.equal(found.pred_classes, expected["labels"])


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("case", ["a", "b"])
def test_losses_and_gradients_equal_the_reference_from_the_images_on(name: str, case: str):
    model = detector(name, norm=FrozenStatisticsBatchNorm)
    load_strictly(model, checkpoint_path(name))
    data, images = golden(f"{name}_data"), stored_images(name)
    ground_truth = [
        Instances(
            size,
            gt_boxes=Boxes(data[f"{case}/img{i}/gt_bboxes"]),
            gt_classes=data[f"{case}/img{i}/gt_labels"],
        )
        for i, size in enumerate(images.image_sizes)
    ]
    model.train()

    def run(batch: ImageList) -> tuple[Tensor, Tensor]:
        """The summed losses, and P5."""
        dense = model.run(batch)
        losses = model.losses(dense, model.targets(dense, ground_truth))
        return sum(losses.values()), dense.features[2]

    def gradients(nudge: Nudge) -> dict[str, Tensor]:
        total, p5 = run(ImageList(nudge(images.tensor), images.image_sizes))
        return {"P5": torch.autograd.grad(total, p5)[0]}

    total = run(images)[0]
    assert_close(total, data[f"{case}/loss_total"], LOSS_NOISE, "total loss")
    total.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    # That of P5 alone: without what reaches it through P6 in an FPN with on_output.
    if model.backbone.top_block.in_feature == "res5":
        expected = {"P5": data[f"{case}/grad/fpn_P5"]}
        assert_gradients_close(gradients, expected, GRADIENT_NOISE)


@pytest.mark.parametrize(
    "style, stride_in_1x1, extra_levels_from, relu",
    [("pytorch", False, "res5", False), ("caffe", True, "p5", True)],
)
@torch.no_grad()
def test_bottleneck_backbones_equal_the_reference(style, stride_in_1x1, extra_levels_from, relu):
    name = f"backbone_r50tiny_{style}"
    model = fpn(resnet50(stride_in_1x1), 16, extra_levels_from, relu)
    weights = read_weights(checkpoint_path(name))
    prefix = "backbone."
    assert all(key.startswith(prefix) for key in weights)
    model.load_state_dict({key[len(prefix) :]: value for key, value in weights.items()})
    data = golden(name)
    stages = model.bottom_up(data["x"])
    levels = model(data["x"])
    stages["res2"] = model.bottom_up.res2(model.bottom_up.stem(data["x"]))
    for i in (2, 3, 4, 5):
        assert_close(stages[f"res{i}"], data[f"C{i}"], FEATURE_NOISE, f"C{i}")
    for level in LEVELS:
        assert_close(levels[level], data[level.upper()], FEATURE_NOISE, level)

    model.top_block.relu = not relu
    assert (model(data["x"])["p7"] - data["P7"]).abs().max() > 0.01 * data["P7"].abs().max()


@torch.no_grad()
def test_training_does_not_change_the_features_with_frozen_statistics():
    name = "det_retinanet"
    teacher = Teacher(detector(name, norm=FrozenStatisticsBatchNorm), checkpoint_path(name))
    teacher.load()
    model = teacher.model.train()
    levels = model.backbone(stored_images(name).tensor)
    data = golden(f"{name}_data")
    for level in LEVELS:
        assert_close(levels[level], data[f"fpn/{level.upper()}"], FEATURE_NOISE, level)
