"""Whatever a head predicts, as long as it is finite: losses and gradients are, and boxes are boxes.

Areas that overflow give finite losses, such as an IoU of 0, and gradients of NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss

from dense_kd.detectors import DeltaCoder, DenseDetector, DistanceCoder, HeadOutputs
from dense_kd.detectors.boxes.coders import ACTIVATIONS, LARGEST, bounded
from dense_kd.detectors.fcos import BOX_LOSSES as FCOS_BOX_LOSSES
from dense_kd.losses import (
    BOX_LOSSES,
    complete_iou_loss,
    elementwise_iou,
    modulated_binary_cross_entropy,
    quality_focal_loss,
)
from dense_kd.outputs import DensePass
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

LARGE = (20.0, 40.0, 60.0, 88.0, 100.0, 1e4, 1e10, 1e19, 1e30)
MODELS: dict[str, Callable[[], DenseDetector]] = {
    **{
        f"FCOS, {activation}, {'strides' if normalize else 'pixels'}, {loss}": (
            lambda a=activation, n=normalize, box_loss=loss: tiny_fcos(
                box2box_transform=L(DistanceCoder)(activation=a, normalize_by_size=n),
                box_reg_loss_type=box_loss,
            )
        )
        for activation, normalize, loss in itertools.product(
            ACTIVATIONS, (True, False), FCOS_BOX_LOSSES
        )
    },
    **{
        f"RetinaNet, detectron2's coder, {loss}": (
            lambda box_loss=loss: tiny_retinanet(box_reg_loss_type=box_loss)
        )
        for loss in BOX_LOSSES
    },
    **{
        f"RetinaNet, DeltaCoder, {loss}": (
            lambda box_loss=loss: tiny_retinanet(
                box_reg_loss_type=box_loss, box2box_transform=L(DeltaCoder)()
            )
        )
        for loss in BOX_LOSSES
    },
    **{
        f"{build.__name__}, exp of anchors": (
            lambda b=build: b(box2box_transform=L(DistanceCoder)(activation="exp", prior_scale=8))
        )
        for build in (tiny_atss, tiny_ddod)
    },
    "ATSS": tiny_atss,
    "ATSS with IoU": lambda: tiny_atss(head={"quality": "iou"}),
    "DDOD": tiny_ddod,
    "PGD's DDOD": lambda: tiny_ddod(cost_rule="pgd"),
    "AutoAssign": tiny_autoassign,
    "GFL": tiny_gfl,
    "RetinaNet of distributions, ciou": lambda: tiny_distribution_retinanet(
        box_reg_loss_type="ciou"
    ),
}
PATTERNS = {
    "all": (1, 1, 1, 1),
    "opposite": (1, -1, 1, -1),
    "one side": (0, 0, 0, 1),
    "all but one": (1, 0, 1, 1),
}
"""What a large number is multiplied with in the code of a box; where it is 0 the code stays."""


class Case:
    """A detector on two images, whose head is asked for other boxes again and again."""

    def __init__(self, build: Callable[[], DenseDetector]):
        self.model = build()
        inputs = batch("usual")
        self.truth = self.model.ground_truth(inputs)
        images = self.model.preprocess_image(inputs)
        self.sizes = images.image_sizes
        features = self.model.backbone(images.tensor)
        with torch.no_grad():
            self.features = [features[name].detach() for name in self.model.head_in_features]
            self.outputs = self.model.head.run(self.features)[0]

    def dense(
        self, values: list[float], pattern: tuple[int, ...]
    ) -> tuple[DensePass, list[Instances], list[Tensor]]:
        """A pass over one of the images in turn for each of the values, which is in its codes of
        boxes, the ground truth, and the leaves that gradients go to."""
        kind = "deltas" if self.outputs.deltas else "distribution"
        image = [i % 2 for i in range(len(values))]
        outputs = {
            name: [level[image] for level in maps] for name, maps in vars(self.outputs).items()
        }
        codes = []
        for level in outputs[kind]:
            bins = level.shape[1] // (4 * self.model.num_anchors)
            factors = torch.tensor(pattern).repeat_interleave(bins).repeat(self.model.num_anchors)
            large = factors[:, None, None] * torch.tensor(values)[:, None, None, None]
            unchanged = (factors == 0)[:, None, None]
            codes.append(torch.where(unchanged, level, large).requires_grad_())
        features, sizes = [x[image] for x in self.features], [self.sizes[i] for i in image]
        dense = self.model.dense_pass(features, HeadOutputs(**{**outputs, kind: codes}), sizes)
        return dense, [self.truth[i] for i in image], codes


@pytest.mark.parametrize("build", MODELS.values(), ids=list(MODELS))
def test_any_finite_code_gives_finite_losses_gradients_and_detections(build):
    case = Case(build)
    values = [sign * size for sign in (1, -1) for size in LARGE]  # on one image, on the other, ...
    for name, pattern in PATTERNS.items():
        dense, truth, codes = case.dense(values, pattern)
        losses = case.model.losses(dense, case.model.targets(dense, truth))
        assert all(loss.isfinite() for loss in losses.values()), (name, losses)
        sum(losses.values()).backward()
        for i, value in enumerate(values):
            assert all(code.grad[i].isfinite().all() for code in codes), f"{name}, {value:g}"
        with torch.no_grad():
            found = case.model.inference(case.dense([60.0, 1e30, -1e30], pattern)[0])
        for detections in found:
            boxes = detections.pred_boxes
            assert (boxes.tensor.abs() <= LARGEST).all()
            boxes.clip(detections.image_size)
            assert boxes.area().isfinite().all()


def test_codes_that_are_not_finite_are_not_hidden():
    case = Case(lambda: tiny_fcos(box2box_transform=L(DistanceCoder)(activation="exp")))
    for value in (float("nan"), float("inf")):
        dense, truth, _ = case.dense([value, value], PATTERNS["all"])
        losses = case.model.losses(dense, case.model.targets(dense, truth))
        assert not losses["loss_fcos_loc"].isfinite()


def test_bounded_keeps_all_that_a_box_can_be_to_the_bit():
    values = torch.tensor([0.0, -0.0, 1e-30, 3.7, -1e4, 999999.9, 1e6, 1e7, -3e38, float("inf")])
    kept = bounded(values)
    assert torch.equal(kept[:7], values[:7])
    assert kept[7:].tolist() == [LARGEST, -LARGEST, float("inf")]
    assert bounded(torch.tensor(float("nan"))).isnan()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_distance_coder_alone_gives_areas_that_are_finite(activation: str):
    codes = torch.tensor([[100.0, 88.0, 60.0, 1e3]], requires_grad=True)
    priors = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    boxes = DistanceCoder(activation=activation).apply_deltas(codes, priors)
    elementwise_iou(boxes, priors).sum().backward()
    assert codes.grad.isfinite().all()


def test_ciou_is_torchvisions_and_has_a_gradient_without_height():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 50, 2, generator=generator) * 100
    high = low + 1 + torch.rand(2, 50, 2, generator=generator) * 100
    boxes, targets = torch.cat((low, high), dim=2)
    boxes.requires_grad_()
    losses, expected = complete_iou_loss(boxes, targets), complete_box_iou_loss(boxes, targets)
    assert torch.equal(losses, expected)
    ours, theirs = (torch.autograd.grad(x.sum(), boxes)[0] for x in (losses, expected))
    torch.testing.assert_close(ours, theirs)  # added up in another order
    for flat in ([5.0, 5.0, 25.0, 5.0], [5.0, 5.0, 5.0, 5.0], [9.0, 5.0, 5.0, 5.0]):
        box = torch.tensor([flat], requires_grad=True)
        loss = complete_iou_loss(box, targets[:1]).sum()
        loss.backward()
        assert loss.isfinite() and box.grad.isfinite().all()
        assert box.grad.abs().max() <= 1e3


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("logit", [-200.0, 200.0, -1e30, 1e30])
def test_scores_that_agree_to_the_bit_have_finite_gradients(beta: float, logit: float):
    logits = torch.full((3,), logit, requires_grad=True)
    losses = [quality_focal_loss(logits, F.relu(torch.full((3,), logit)).clamp(max=1), beta)]
    if beta > 0:
        losses.append(modulated_binary_cross_entropy(logits, torch.full((3,), logit), beta)[0])
    for loss in losses:
        [gradient] = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all() and gradient.isfinite().all()
