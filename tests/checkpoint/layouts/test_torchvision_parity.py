"""torchvision's detectors with random weights, and ours with these weights, on the same images.

What must be equal: the pyramid, the anchors, the head's outputs, and the detections. torchvision
keeps detections without area, which no evaluation counts; ours are without.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torchvision
from detectron2.config import LazyConfig, instantiate
from torch import Tensor, nn

from dense_kd import get_config_file
from dense_kd.checkpoint import convert, load_strictly
from dense_kd.checkpoint.layouts.torchvision import object_classes
from dense_kd.detectors import DenseDetector
from dense_kd.outputs import DensePass
from helpers.builders import assert_close, fill_randomly
from helpers.configs import random_numbers_from_a_table

pytestmark = pytest.mark.slow

CASES = {
    "retinanet_resnet50_fpn": (91, 4.8),
    "retinanet_resnet50_fpn_v2": (6, 4.5),
    "fcos_resnet50_fpn": (91, 4.3),
}
"""{function: (class outputs, what to lower their logits by for a number of detections)}"""

SIZES = [(90, 126), (90, 102)]  # padded to 96 x 128, so that P6 and P7 are rounded up
TOLERANCE = 2e-5  # of the largest element; rounding after 50 layers


@dataclass
class Pair:
    theirs: nn.Module
    ours: DenseDetector
    classes: list[int]
    images: list[Tensor]
    features: list[Tensor]
    outputs: dict[str, Tensor]
    anchors: Tensor
    dense: DensePass

    def in_our_order(self, values: Tensor) -> Tensor:
        """(..., R, C) with anchors (ratio, size) -> (size, ratio)."""
        anchors = self.ours.num_anchors
        if anchors == 1:
            return values
        side = int(anchors**0.5)
        return values.unflatten(-2, (-1, side, side)).transpose(-3, -2).flatten(-4, -2)


def reference(name: str) -> nn.Module:
    build = getattr(torchvision.models.detection, name)
    model = build(
        weights=None, weights_backbone=None, num_classes=CASES[name][0], min_size=90
    ).eval()
    fill_randomly(model)
    with torch.no_grad():
        if name == "retinanet_resnet50_fpn":
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0  # as torchvision runs its COCO weights
            # The same function of the image, but only with that eps.
            body = model.backbone.body
            for tensor in (body.conv1.weight, body.bn1.running_mean):
                tensor.mul_(0.01)
            body.bn1.running_var.mul_(1e-4)
        head = model.head.classification_head
        bias = head.cls_logits.bias.view(head.num_anchors, -1)
        bias -= CASES[name][1]
        kept = object_classes(CASES[name][0])
        bias[:, [c for c in range(bias.shape[1]) if c not in kept]] -= 100  # never positive
        model.head.regression_head.bbox_reg.weight.mul_(0.3)  # boxes in the image
        if name == "fcos_resnet50_fpn":
            model.head.regression_head.bbox_reg.bias.add_(2.0)
    return model


@pytest.fixture(scope="module", params=list(CASES))
def pair(request) -> Pair:
    name = request.param
    with random_numbers_from_a_table():  # others follow in both
        theirs = reference(name)
    classes = object_classes(CASES[name][0])
    make = LazyConfig.load(get_config_file("common/models/torchvision_detectors.py"), name)
    with random_numbers_from_a_table():
        ours = instantiate(make(num_classes=len(classes))).eval()
    weights = convert(theirs.state_dict(), source=name).weights
    load_strictly(ours, name, weights)

    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(256, (3, *size), generator=generator) for size in SIZES]
    with torch.no_grad():
        batch, _ = theirs.transform([image / 255 for image in images])
        features = list(theirs.backbone(batch.tensors).values())
        outputs = theirs.head(features)
        anchors = theirs.anchor_generator(batch, features)[0]
        dense = ours.run(ours.preprocess_image([{"image": image} for image in images]))
    return Pair(theirs, ours, classes, images, features, outputs, anchors, dense)


def test_the_pyramid_is_equal(pair):
    assert len(pair.features) == len(pair.dense.features) == 5
    for level, (ours, theirs) in enumerate(zip(pair.dense.features, pair.features)):
        assert_close(ours, theirs, TOLERANCE, f"P{level + 3}")


def test_the_anchors_are_equal(pair):
    assert torch.equal(torch.cat(pair.dense.priors), pair.in_our_order(pair.anchors))


def test_the_outputs_of_the_head_are_equal(pair):
    logits = pair.in_our_order(pair.outputs["cls_logits"])[..., pair.classes]
    assert_close(torch.cat(pair.dense.logits, dim=1), logits, TOLERANCE, "logits")
    deltas = torch.cat(pair.dense.deltas, dim=1)
    if "bbox_ctrness" in pair.outputs:
        deltas = deltas.relu()  # torchvision's head does it, ours leaves it to the coder
        quality = pair.outputs["bbox_ctrness"].squeeze(-1)
        assert_close(torch.cat(pair.dense.quality, dim=1), quality, TOLERANCE, "centreness")
    boxes = pair.in_our_order(pair.outputs["bbox_regression"])
    assert_close(deltas, boxes, TOLERANCE, "deltas")


def test_the_detections_are_equal(pair):
    with torch.no_grad():
        theirs = pair.theirs([image / 255 for image in pair.images])
        ours = pair.ours([{"image": image} for image in pair.images])
    for expected, result in zip(theirs, ours):
        width, height = (expected["boxes"][:, 2:] - expected["boxes"][:, :2]).unbind(dim=1)
        expected = {k: v[(width > 0) & (height > 0)] for k, v in expected.items()}
        found = result["instances"]
        assert width.numel() < pair.ours.max_detections_per_image  # none of them left out
        assert 20 < len(found) == len(expected["scores"])
        labels = torch.tensor(pair.classes)[found.pred_classes]
        assert torch.equal(labels, expected["labels"])
        assert_close(found.scores, expected["scores"], 1e-4, "scores")
        assert_close(found.pred_boxes.tensor, expected["boxes"], 1e-4, "boxes")
