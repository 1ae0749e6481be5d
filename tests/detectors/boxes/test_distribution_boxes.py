"""ATSS, FCOS and RetinaNet with boxes that are distributions over distances, as GFL's are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.detectors import DenseDetector, DistanceCoder
from dense_kd.detectors.boxes.distributions import distribution_loss, expected_distances
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    tiny_atss,
    tiny_ddod,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

REG_MAX = 16
DETECTORS = {
    "atss": lambda **kw: tiny_atss(head={"reg_max": REG_MAX}, **kw),
    "atss with IoU": lambda **kw: tiny_atss(head={"reg_max": REG_MAX, "quality": "iou"}, **kw),
    "fcos": lambda **kw: tiny_fcos(head={"reg_max": REG_MAX}, **kw),
    "fcos by centreness": lambda **kw: tiny_fcos(
        head={"reg_max": REG_MAX, "level_scales": True}, box_loss_weighting="centerness", **kw
    ),
    "retinanet": lambda **kw: tiny_distribution_retinanet(reg_max=REG_MAX, **kw),
}
LOSS = {"fcos": "loss_fcos_dfl", "fcos by centreness": "loss_fcos_dfl"}
UNIT = {"fcos": 1.0, "fcos by centreness": 1.0}  # prior sizes; the others have eighths of them


@pytest.fixture(params=list(DETECTORS))
def name(request) -> str:
    return request.param


def run(model: DenseDetector, case: str = "usual"):
    inputs = batch(case)
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


def test_boxes_are_expected_distances_from_the_centre_of_the_prior(name: str):
    model = DETECTORS[name]()
    dense, _ = run(model)
    assert model.predicts_distribution
    unit = UNIT.get(name, 1 / 8)
    bins = torch.arange(REG_MAX + 1)
    for level, boxes in enumerate(dense.boxes):
        distribution, priors = dense.distribution[level], dense.priors[level]
        assert distribution.shape == (2, len(priors), 4, REG_MAX + 1)
        assert distribution.dtype == dense.deltas[level].dtype == torch.float32
        left, top, right, bottom = (distribution.softmax(-1) * bins).sum(-1).unbind(-1)
        x, y = ((priors[:, :2] + priors[:, 2:]) / 2).unbind(1)
        width, height = ((priors[:, 2:] - priors[:, :2]) * unit).unbind(1)
        expected = [x - left * width, y - top * height, x + right * width, y + bottom * height]
        assert_close(boxes, torch.stack(expected, dim=-1), 1e-5)


def test_channels_are_anchor_side_bin():
    model = tiny_distribution_retinanet(reg_max=3)
    features = [torch.zeros(1, 16, size, size) for size in (4, 2, 1)]
    outputs, _ = model.head.run(features)
    maps = outputs.distribution[0]
    assert maps.shape == (1, 6 * 4 * 4, 4, 4) and outputs.deltas == []
    maps.data.fill_(-50.0)
    maps.data[0, (5 * 4 + 2) * 4 + 3, 1, 2] = 0.0  # anchor 5, side 2 (right), bin 3
    dense = model.dense_pass(features, outputs, [(32, 32)])
    index = (1 * 4 + 2) * 6 + 5  # row 1, column 2, anchor 5
    assert dense.distribution[0][0, index, 2].tolist() == [-50, -50, -50, 0]
    assert dense.deltas[0][0, index].tolist() == pytest.approx([1.5, 1.5, 3.0, 1.5])


def cross_entropies(dense, targets, unit: float) -> Tensor:
    """(P,): equation 6 of GFL in loops, mean over the sides."""
    foreground = targets.foreground
    probabilities = torch.cat(dense.distribution, dim=1)[foreground].softmax(dim=-1)
    priors = torch.cat(dense.priors).expand(2, -1, 4)[foreground]
    values = []
    for p, prior, box in zip(probabilities, priors.tolist(), targets.boxes[foreground].tolist()):
        x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
        width, height = (prior[2] - prior[0]) * unit, (prior[3] - prior[1]) * unit
        sides = [
            (x - box[0]) / width,
            (y - box[1]) / height,
            (box[2] - x) / width,
            (box[3] - y) / height,
        ]
        value = 0.0
        for side, d in enumerate(min(max(d, 0), REG_MAX - 0.1) for d in sides):
            i = int(d)
            value -= (i + 1 - d) * p[side, i].log() + (d - i) * p[side, i + 1].log()
        values.append(value / 4)
    return torch.stack(values)


def test_the_distribution_loss_is_weighted_and_divided_as_the_box_loss(name: str):
    model = DETECTORS[name](distribution_loss_weight=0.5)
    dense, targets = run(model)
    losses = model.losses(dense, targets)
    foreground = targets.foreground
    entropies = cross_entropies(dense, targets, UNIT.get(name, 1 / 8))
    assert len(entropies) > 5
    giou = generalized_box_iou(
        torch.cat(dense.boxes, dim=1)[foreground], targets.boxes[foreground]
    ).diagonal()
    if name in ("atss", "fcos by centreness"):
        weights = targets.quality[foreground]
        divisor = max(weights.sum().item(), 1.0 if name == "atss" else 1e-6)
    else:
        weights, divisor = torch.ones(len(entropies)), targets.normalizer
    found = losses[LOSS.get(name, "loss_dfl")]
    assert_close(found, 0.5 * (weights * entropies).sum() / divisor)
    box_weight = 2 if name.startswith("atss") else 1
    box_loss = losses["loss_fcos_loc" if name.startswith("fcos") else "loss_box_reg"]
    assert_close(box_loss, box_weight * (weights * (1 - giou)).sum() / divisor)


def test_without_reg_max_nothing_changes():
    for make, transform in (
        (tiny_atss, "DeltaCoder"),
        (tiny_fcos, "DistanceCoder"),
        (tiny_retinanet, "Box2BoxTransform"),
    ):
        model = make()
        assert not model.predicts_distribution and model.head.reg_max is None
        assert model.head.bbox_pred.out_channels == 4 * model.num_anchors
        assert type(model.box2box_transform).__name__ == transform
        dense, targets = run(model)
        assert dense.distribution is None
        assert not any("dfl" in key for key in model.losses(dense, targets))


def test_the_default_coders_are_those_of_gfl_and_of_fcos():
    assert vars(DETECTORS["atss"]().box2box_transform) == vars(tiny_gfl().box2box_transform)
    coder = DETECTORS["fcos"]().box2box_transform
    assert coder.normalize_by_size and coder.prior_scale == 1


@pytest.mark.parametrize("case", CASES)
def test_a_step_trains_every_parameter_and_the_model_detects(name: str, case: str):
    model = DETECTORS[name](test_score_thresh=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model(batch(case))
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses[LOSS.get(name, "loss_dfl")] == 0) == (case == "all empty")
    sum(losses.values()).backward()
    for key, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model(batch(case))
    for image in found:
        detections = image["instances"]
        assert len(detections) > 0
        assert detections.pred_boxes.tensor.isfinite().all()
        assert detections.pred_classes.max() < NUM_CLASSES


def test_ten_steps_bring_the_distribution_loss_down(name: str):
    model = DETECTORS[name](loss_normalizer_momentum=0.0)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-2)
    history = []
    for _ in range(10):
        losses = model(batch("usual"))
        history.append(losses[LOSS.get(name, "loss_dfl")].item())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert history[-1] < 0.9 * history[0]


def test_resuming_from_a_tap_gives_the_same_distributions(name: str):
    model = DETECTORS[name]()
    images = model.preprocess_image(batch("usual"))
    dense = model.run(images, [("cls", 1), ("bbox", 1)])
    taps = {branch: dense.taps[branch, 1] for branch in ("cls", "bbox")}
    resumed = model.dense_pass(dense.features, model.head.resume(taps, 1), dense.image_sizes)
    for ours, theirs in zip(resumed.distribution, dense.distribution):
        assert torch.equal(ours, theirs)


def test_bckd_distils_them(name: str):
    distiller = Distiller(
        student=DETECTORS[name](),
        teacher=Teacher(DETECTORS[name](seed=1), None),
        methods=MethodSet(bckd=BCKD()),
    )
    losses = distiller(batch("usual"))
    assert losses["kd_bckd_loss_cls"] > 0 and losses["kd_bckd_loss_loc"] > 0
    gradient = torch.autograd.grad(
        losses["kd_bckd_loss_loc"], distiller.student.head.bbox_pred.weight
    )[0]
    assert gradient.abs().max() > 0


def test_losses_under_autocast_are_float32_and_close(name: str):
    model = DETECTORS[name]()
    normalizer = model.loss_normalizer.clone()
    full = model(batch("usual"))
    model.loss_normalizer.copy_(normalizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(batch("usual"))
    key = LOSS.get(name, "loss_dfl")
    assert mixed[key].dtype == torch.float32
    assert mixed[key].item() == pytest.approx(full[key].item(), rel=0.02)


def test_sixteen_eighths_of_an_anchor_enclose_every_box_that_overlaps_it_by_half():
    generator = torch.Generator().manual_seed(0)
    anchor = torch.tensor([[100.0, 100.0, 164.0, 132.0]])
    center = torch.tensor([132.0, 116.0]) + 40 * (torch.rand(200_000, 2, generator=generator) - 0.5)
    half = 4 + 60 * torch.rand(200_000, 2, generator=generator)
    boxes = torch.cat((center - half, center + half), dim=1)
    boxes = boxes[box_iou(anchor, boxes)[0] >= 0.5]
    assert len(boxes) > 500
    distances = DistanceCoder(activation="identity", prior_scale=8).get_deltas(anchor, boxes)
    assert 0 <= distances.min() < 1 and 9 < distances.max() < REG_MAX - 0.1


def test_distances_beyond_the_last_bin_are_clamped():
    model = tiny_distribution_retinanet(reg_max=2)
    dense, targets = run(model)
    log_probability = torch.cat(dense.distribution, 1)[targets.foreground].log_softmax(-1)
    targets.boxes = torch.tensor([-9e3, -9e3, 9e3, 9e3]).expand_as(targets.boxes)
    expected = -(0.1 * log_probability[..., 1] + 0.9 * log_probability[..., 2]).mean(dim=1)
    assert_close(distribution_loss(dense, targets, model.box2box_transform), expected, 1e-5)


def test_distances_to_a_box_far_away_are_clamped():
    """To the left and above they are negative, so in the first bin."""
    model = tiny_distribution_retinanet(reg_max=2)
    dense, targets = run(model)
    entropy = -torch.cat(dense.distribution, 1)[targets.foreground].log_softmax(-1)  # (P, 4, 3)
    targets.boxes = torch.tensor([8e3, 8e3, 9e3, 9e3]).expand_as(targets.boxes)
    last = 0.1 * entropy[..., 1] + 0.9 * entropy[..., 2]
    expected = torch.cat((entropy[:, :2, 0], last[:, 2:]), dim=1).mean(dim=1)
    assert_close(distribution_loss(dense, targets, model.box2box_transform), expected, 1e-5)


def test_expected_distances_are_not_rounded_under_autocast():
    distribution = torch.randn(2, 5, 4, 17, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = expected_distances(distribution)
    assert found.dtype == torch.float32 and torch.equal(found, expected_distances(distribution))


def test_the_expectation_of_a_uniform_distribution_is_its_middle():
    assert expected_distances(torch.full((2, 4, 5), 3.0)).tolist() == [[2.0] * 4] * 2


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: tiny_fcos(head={"reg_max": 0}),
            "reg_max=0: expected a whole number of at least 1, or None",
        ),
        (
            lambda: tiny_distribution_retinanet(
                box2box_transform=tiny_retinanet().box2box_transform
            ),
            "predicts distances .* and box2box_transform is a Box2BoxTransform",
        ),
        (
            lambda: tiny_fcos(
                head={"reg_max": 4}, box2box_transform=DistanceCoder(activation="exp")
            ),
            "of something else; expected DistanceCoder",
        ),
        (
            lambda: tiny_fcos(
                head={"reg_max": 4}, box2box_transform=DistanceCoder(normalize_by_size=False)
            ),
            "of something else",
        ),
    ],
)
def test_codes_that_are_no_distances_in_units_of_a_prior_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_detectors_without_a_loss_for_distributions_refuse_the_head():
    head = DETECTORS["atss with IoU"]().head
    with pytest.raises(ValueError, match="head has reg_max=16, and DDOD has no loss"):
        type(tiny_ddod())(
            backbone=tiny_ddod().backbone,
            head=head,
            num_classes=NUM_CLASSES,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        )
