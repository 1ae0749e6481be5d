"""DDODAssigner on examples worked out by hand, and against its rules written out in loops."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from dense_kd.detectors import DDODAssigner
from helpers.builders import instances
from helpers.largest_tensor import LargestTensor

BOX = [0.0, 0.0, 40.0, 10.0]
ROW = torch.tensor([[x, 0.0, x + 10, 10.0] for x in (0, 10, 20, 30)])  # four anchors in BOX
BELOW = ROW + torch.tensor([0.0, 20.0, 0.0, 20.0])  # and four below it


def overlapping(values: list[float]) -> Tensor:
    """(1, R, 4): boxes that have these IoU with BOX."""
    return torch.tensor([[[0.0, 0.0, 40 * value, 10.0] for value in values]])


def assigned(
    priors: list[Tensor],
    boxes: list[list[float]],
    scores: list[list[float]],
    predicted: Tensor,
    image_size: tuple[int, int] = (160, 160),
    **options,
) -> list[int]:
    """R labels; box i has class i. ``scores`` is (R, K)."""
    truth = instances(image_size, boxes, list(range(len(boxes))))
    logits = torch.tensor([scores]).logit()
    labels, matched = DDODAssigner(**options).assign(
        priors, [truth], len(boxes), [image_size], logits, predicted
    )
    for label, box in zip(labels[0].tolist(), matched[0]):
        if 0 <= label < len(boxes):
            assert box.tolist() == truth.gt_boxes.tensor[label].tolist()
    return labels[0].tolist()


@pytest.mark.parametrize(
    "alpha, expected",
    [
        (0.0, [1, 0, 1, 1]),  # costs 0.64, 0.81, 0.09, 0.04: mean 0.395 and deviation 0.388
        (0.5, [0, 1, 1, 1]),  # costs 0.72, 0.45, 0.12, 0.06: mean 0.338 and deviation 0.307
        (1.0, [0, 1, 1, 1]),  # costs 0.81, 0.25, 0.16, 0.09: mean 0.328 and deviation 0.328
    ],
)
def test_the_cost_weighs_score_and_overlap_by_alpha(alpha: float, expected: list[int]):
    scores = [[0.64], [0.81], [0.09], [0.04]]
    predicted = overlapping([0.81, 0.25, 0.16, 0.09])
    assert assigned([ROW], [BOX], scores, predicted, alpha=alpha) == expected


def test_the_deviation_is_unbiased():
    # IoU 0.6, 0.55, 0 and 0: mean 0.288 and deviation 0.333 make 0.620; a biased one makes 0.576.
    predicted = overlapping([0.6, 0.55, 0, 0])
    assert assigned([ROW], [BOX], [[0.5]] * 4, predicted, alpha=1.0) == [1] * 4


def test_candidates_are_the_nearest_anchors_of_each_level_however_good_others_are():
    far = ROW.clone()
    predicted = overlapping([1.0, 0.25, 0.25, 1.0, 0.25, 0.25, 0.25, 0.5])
    labels = assigned([ROW, far], [BOX], [[0.5]] * 8, predicted, alpha=1.0, topk=2)
    assert labels == [1, 0, 0, 1, 1, 0, 0, 1]  # all candidates are equal: none is below the mean


def test_only_the_score_of_the_boxs_own_class_counts():
    scores = [[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    predicted = overlapping([0.5] * 4)
    other = [0.0, 100.0, 40.0, 110.0]  # no centre is inside
    assert assigned([ROW], [BOX, other], scores, predicted, alpha=0.5) == [2, 0, 2, 2]


RULES = pytest.mark.parametrize("cost_rule", ["mmdet", "pgd"])


@RULES
def test_a_centre_must_be_inside_the_box(cost_rule: str):
    predicted = overlapping([0.1, 0.1, 0.1, 0.1, 1.0, 0.1, 0.1, 0.1])
    options = {"alpha": 1.0, "topk": 8, "cost_rule": cost_rule}
    labels = assigned([torch.cat((ROW, BELOW))], [BOX], [[0.5]] * 8, predicted, **options)
    assert labels == ([1] * 8 if cost_rule == "mmdet" else [0] * 4 + [1] * 4)


@RULES
@pytest.mark.parametrize(("left", "label"), [(4.98, 0), (4.995, 1)])
def test_a_hundredth_of_a_pixel_inside_is_not_enough(cost_rule: str, left: float, label: int):
    predicted = torch.tensor([[[left, 0.0, 40.0, 10.0], *[[0.0] * 4] * 3]])
    options = {"alpha": 1.0, "topk": 4, "cost_rule": cost_rule}
    labels = assigned([ROW], [[left, 0.0, 40.0, 10.0]], [[0.5]] * 4, predicted, **options)
    assert labels == [label, 1, 1, 1]


@RULES
def test_an_anchor_goes_to_the_box_it_fits_best(cost_rule: str):
    predicted = torch.tensor([[[0.0, 0, 40, 10], [0, 0, 40, 20], [0, 0, 0, 0], [0, 0, 0, 0]]])
    boxes = [[0.0, 0, 40, 10], [0.0, 0, 40, 20]]
    options = {"alpha": 0.5, "cost_rule": cost_rule}
    # Overlaps with box 0: 1 and 0.5; with box 1: 0.5 and 1.
    labels = assigned([ROW], boxes, [[0.5, 0.5]] * 4, predicted, **options)
    assert labels[:2] == [0, 1]
    labels = assigned(
        [ROW], boxes, [[0.9, 0.1], [0.9, 0.1], *[[0.5, 0.5]] * 2], predicted, **options
    )
    assert labels[:2] == ([0, 0] if cost_rule == "pgd" else [0, 1])
    # sqrt(0.9 * 0.5) = 0.67 beats sqrt(0.1 * 1) = 0.32; but the rule "mmdet" asks box 0 first for
    # more than mean 0.40 and deviation 0.48, which 0.67 is not.


@RULES
def test_the_first_of_identical_boxes_wins(cost_rule: str):
    predicted = overlapping([1.0, 0, 0, 0])
    scores = [[0.5, 0.5, 0.5]] * 4
    assert assigned([ROW], [BOX] * 3, scores, predicted, alpha=0.5, cost_rule=cost_rule)[0] == 0


def test_without_any_overlap_all_candidates_inside_are_positive_but_not_with_pgds_rule():
    predicted = torch.tensor([[[100.0, 100.0, 110.0, 110.0]] * 8])
    priors = [torch.cat((ROW, BELOW))]
    options = {"alpha": 0.5, "topk": 6}
    labels = assigned(priors, [BOX], [[0.5]] * 8, predicted, **options)
    assert labels == [0] * 4 + [1] * 4  # all costs are 0, and so is the threshold
    assert assigned(priors, [BOX], [[0.5]] * 8, predicted, cost_rule="pgd", **options) == [1] * 8


def test_pgds_candidates_are_the_best_of_all_levels():
    predicted = overlapping([1.0, 0.3, 0.3, 0.9, 0.3, 0.8, 0.3, 0.4])
    options = {"alpha": 1.0, "cost_rule": "pgd"}
    for topk, best in ((1, [0]), (3, [0, 3, 5]), (4, [0, 3, 5, 7]), (100, list(range(8)))):
        labels = assigned([ROW, ROW], [BOX], [[0.5]] * 8, predicted, topk=topk, **options)
        assert [i for i, label in enumerate(labels) if label == 0] == best


def test_pgds_candidates_outside_of_the_box_are_not_replaced():
    predicted = overlapping([0.2, 0.3, 0.2, 0.2, 1.0, 0.9, 0.2, 0.2])
    options = {"alpha": 1.0, "cost_rule": "pgd", "topk": 3}
    labels = assigned([torch.cat((ROW, BELOW))], [BOX], [[0.5]] * 8, predicted, **options)
    assert labels == [1, 0, 1, 1, 1, 1, 1, 1]  # the best two are below the box


@RULES
def test_anchors_in_the_padding_are_ignored_however_good(cost_rule: str):
    priors = [torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [32, 0, 40, 8], [8, 32, 16, 40]])]
    predicted = overlapping([0.9, 0.1, 1.0, 1.0])
    options = {"alpha": 1.0, "cost_rule": cost_rule, "topk": 2}
    labels = assigned(priors, [BOX], [[0.5]] * 4, predicted, image_size=(30, 20), **options)
    assert labels[2:] == [-1, -1] and (labels[0] == 0) == (cost_rule == "pgd")
    options["padding_multiple"] = None
    labels = assigned(priors, [BOX], [[0.5]] * 4, predicted, image_size=(30, 20), **options)
    assert -1 not in labels


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared)


def by_loops(priors, boxes, scores, predicted, alpha, topk, cost_rule) -> list[int]:
    """Both rules as the references state them; the class of box g is g."""
    anchors = [a for level in priors for a in level.tolist()]
    centers = [((a[0] + a[2]) / 2, (a[1] + a[3]) / 2) for a in anchors]
    labels, best = [len(boxes)] * len(anchors), [-1.0] * len(anchors)
    for g, box in enumerate(boxes):
        costs = [s[g] ** (1 - alpha) * iou(p, box) ** alpha for s, p in zip(scores, predicted)]
        if cost_rule == "pgd":
            index = sorted(range(len(anchors)), key=lambda i: -costs[i])[:topk]
            chosen = [i for i in index if costs[i] > 0]
        else:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            distances = [(cx - x) ** 2 + (cy - y) ** 2 for cx, cy in centers]
            index, start = [], 0
            for level in priors:
                of_level = range(start, start + len(level))
                index += sorted(of_level, key=lambda i: distances[i])[:topk]
                start += len(level)
            near = [costs[i] for i in index]
            threshold = statistics.mean(near) + statistics.stdev(near)
            chosen = [i for i in index if costs[i] >= threshold]
        for i in chosen:
            cx, cy = centers[i]
            inside = min(cx - box[0], cy - box[1], box[2] - cx, box[3] - cy) > 0.01
            if inside and costs[i] > best[i]:
                labels[i], best[i] = g, costs[i]
    return labels


def random_case(seed: int, num_boxes: int = 10) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Anchors of two levels, boxes (M, 4), scores (R, M) and predicted boxes (R, 4)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    centers = [random(60, 2) * 128, random(20, 2) * 128]
    priors = [torch.cat((c - size, c + size), dim=1) for c, size in zip(centers, (16, 32))]
    low = random(num_boxes, 2) * 80
    boxes = torch.cat((low, low + 15 + random(num_boxes, 2) * 60), dim=1)
    predicted = torch.cat(priors) + 10 * (random(80, 4) - 0.5)
    return priors, boxes, random(80, num_boxes) * 0.98 + 0.01, predicted


@RULES
@pytest.mark.parametrize("alpha", [0.8, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_it_follows_the_rules_written_out_in_loops(cost_rule: str, alpha: float, seed: int):
    priors, boxes, scores, predicted = random_case(seed)
    options = {"alpha": alpha, "topk": 5, "cost_rule": cost_rule}
    found = assigned(
        priors, boxes.tolist(), scores.tolist(), predicted[None], padding_multiple=None, **options
    )
    assert found == by_loops(priors, boxes.tolist(), scores.tolist(), predicted.tolist(), **options)
    assert len(set(found)) > 5


@RULES
def test_no_tensor_over_predictions_boxes_and_classes_is_made(cost_rule: str):
    priors, boxes, _, predicted = random_case(0, num_boxes=50)
    truth = instances((128, 128), boxes.tolist(), [i % 40 for i in range(50)])
    logits = torch.zeros(1, 80, 40)
    assigner = DDODAssigner(alpha=0.8, cost_rule=cost_rule)
    with LargestTensor() as largest:
        assigner.assign(priors, [truth], 40, [(128, 128)], logits, predicted[None])
    assert 80 * 50 <= largest.elements <= 4 * 80 * 50


@RULES
def test_an_image_without_boxes_is_background(cost_rule: str):
    truth = [instances((64, 64), [], []), instances((64, 64), [BOX], [1])]
    predicted = overlapping([1.0, 0, 0, 0]).expand(2, -1, -1)
    labels, boxes = DDODAssigner(alpha=0.5, cost_rule=cost_rule).assign(
        [ROW], truth, 3, [(64, 64)] * 2, torch.zeros(2, 4, 3), predicted
    )
    assert labels.tolist() == [[3] * 4, [1, 3, 3, 3]]
    assert boxes.shape == (2, 4, 4) and boxes[1, 0].tolist() == BOX


def test_the_result_carries_no_gradient():
    logits = torch.zeros(1, 4, 1, requires_grad=True)
    predicted = overlapping([1.0, 0, 0, 0]).requires_grad_()
    truth = [instances((64, 64), [BOX], [0])]
    _, boxes = DDODAssigner(alpha=0.5).assign([ROW], truth, 1, [(64, 64)], logits, predicted)
    assert not boxes.requires_grad


@pytest.mark.parametrize("shapes", [((1, 4, 7), (1, 4, 4)), ((1, 5, 3), (1, 5, 4))])
def test_predictions_of_another_detector_say_what_is_expected(shapes):
    truth = [instances((64, 64), [BOX], [0])]
    logits, predicted = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"expected \(N, R, K\) = \(1, 4, 3\).*same anchors"):
        DDODAssigner(alpha=0.5).assign([ROW], truth, 3, [(64, 64)], logits, predicted)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": 1.5}, "alpha=1.5: expected"),
        ({"alpha": -0.1}, "alpha=-0.1: expected"),
        ({"alpha": 0.5, "cost_rule": "ota"}, "cost_rule='ota': expected one of"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        DDODAssigner(**options)
