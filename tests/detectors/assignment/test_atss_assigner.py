"""ATSSAssigner on examples worked out by hand, and against its algorithm written out in loops."""

from __future__ import annotations

import statistics

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor

from dense_kd.detectors import ATSSAssigner
from helpers.builders import instances

# Two levels; the centres of the small anchors are (5, 5), (15, 5) and (35, 5).
LEVELS = [
    torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [30, 0, 40, 10]]),
    torch.tensor([[0.0, 0, 40, 40], [100, 100, 140, 140]]),
]


def assigned(
    priors: list[Tensor],
    boxes: list[list[float]],
    image_size: tuple[int, int] = (160, 160),
    **options,
) -> Tensor:
    """(R,): labels; box i has class i."""
    truth = instances(image_size, boxes, list(range(len(boxes))))
    assigner = ATSSAssigner(**options)
    labels, matched = assigner.assign(priors, [truth], len(boxes), [image_size])
    for label, box in zip(labels[0].tolist(), matched[0]):
        if 0 <= label < len(boxes):
            assert box.tolist() == truth.gt_boxes.tensor[label].tolist()
    return labels[0]


def grid(height: int, width: int, num_levels: int = 2) -> list[Tensor]:
    """Square anchors of 8 strides, as ATSS has them; the first level has stride 8."""
    strides = [8 * 2**level for level in range(num_levels)]
    generator = DefaultAnchorGenerator(
        sizes=[[8 * stride] for stride in strides], aspect_ratios=[1.0], strides=strides, offset=0.0
    )
    maps = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in strides]
    return [boxes.tensor for boxes in generator(maps)]


def test_the_threshold_is_the_mean_plus_the_unbiased_deviation_of_the_candidates():
    # The two nearest of each level have the IoU 80/140, 40/180, 120/1600 and 0; mean 0.217 and
    # deviation 0.254 make 0.471.
    assert assigned(LEVELS, [[2, 0, 14, 10]], topk=2).tolist() == [0, 1, 1, 1, 1]


def test_the_deviation_is_unbiased():
    # IoU 0.6, 0.55, 0 and 0: mean 0.288 and deviation 0.333 make 0.620; a biased one makes 0.576.
    far = torch.tensor([[100.0, 0, 110, 10], [120, 0, 130, 10]])
    near = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 5.5]])
    assert assigned([near, far], [[0, 0, 10, 10]], topk=2).tolist() == [1, 1, 1, 1]


def test_an_overlap_equal_to_the_threshold_is_positive():
    equal = torch.tensor([[0.0, 0, 10, 10]] * 2)
    assert assigned([equal, equal], [[0, 0, 10, 10]], topk=2).tolist() == [0, 0, 0, 0]


def test_candidates_are_the_nearest_anchors_of_each_level():
    # With one candidate per level the second anchor is none, though it overlaps the box most.
    # A box of centre (10, 5) would be as far from the first as from the second.
    assert assigned(LEVELS, [[3.9, 0, 16, 10]], topk=1)[1] == 1
    assert assigned(LEVELS, [[4.1, 0, 16, 10]], topk=1)[0] == 1
    assert (
        assigned(LEVELS, [[4, 0, 16, 10]], topk=100) == 0
    ).any()  # a level may have fewer than that


@pytest.mark.parametrize(("left", "label"), [(4.98, 0), (4.995, 1), (5.5, 1)])
def test_a_centre_must_be_more_than_a_hundredth_of_a_pixel_inside(left: float, label: int):
    # The first anchor, of centre (5, 5), overlaps the box by far the most.
    assert assigned(LEVELS, [[left, 0, 10, 10]], topk=2)[0] == label


def test_an_anchor_goes_to_the_box_it_overlaps_most():
    small, large = [0, 0, 10, 9], [0, 0, 10, 14]
    assert assigned(LEVELS, [small, large], topk=2)[0] == 0
    assert assigned(LEVELS, [large, small], topk=2)[0] == 1


def test_the_first_of_identical_boxes_wins():
    assert assigned(LEVELS, [[1, 0, 10, 10]] * 3, topk=2)[0] == 0


def test_anchors_beyond_the_padded_size_of_their_own_image_are_ignored():
    priors = grid(64, 128, num_levels=1)
    # An image of 30 x 33 is padded to 32 x 64: 4 of 8 rows and 8 of 16 columns.
    inside = torch.zeros(8, 16, dtype=torch.bool)
    inside[:4, :8] = True
    for boxes in ([], [[4, 4, 28, 28]]):
        labels = assigned(priors, boxes, (30, 33)).view(8, 16)
        assert torch.equal(labels >= 0, inside)
    assert (assigned(priors, [[4, 4, 28, 28]], (30, 33), padding_multiple=None) >= 0).all()
    labels = assigned(priors, [], (30, 33), padding_multiple=8).view(8, 16)
    assert torch.equal((labels >= 0).nonzero().amax(dim=0), torch.tensor([3, 4]))


def test_ignored_anchors_are_no_candidates():
    boxes = [[76, 19, 96, 64], [20, 20, 94, 63]]
    padded = assigned(grid(192, 256), boxes, (64, 96))
    cropped = assigned(grid(64, 96), boxes, (64, 96))
    assert torch.equal(padded[padded >= 0], cropped)
    assert (cropped < 2).sum() > 5
    everywhere = assigned(grid(192, 256), boxes, (64, 96), padding_multiple=None)
    assert not torch.equal(everywhere[padded >= 0], cropped)


def test_an_image_without_boxes_is_background():
    truth = [instances((64, 64), [], []), instances((64, 64), [[0, 0, 10, 10]], [1])]
    labels, boxes = ATSSAssigner(topk=2, padding_multiple=None).assign(
        LEVELS, truth, 3, [(64, 64)] * 2
    )
    assert labels.tolist() == [[3] * 5, [1, 3, 3, 3, 3]]
    assert boxes.shape == (2, 5, 4) and boxes[1, 0].tolist() == [0, 0, 10, 10]


def test_a_box_larger_than_the_image_is_matched_and_one_outside_of_it_is_not():
    assert (assigned(grid(64, 96), [[-20, -20, 120, 90]], (64, 96)) == 0).any()
    assert not (assigned(grid(64, 96), [[200, 200, 260, 260]], (64, 96)) == 0).any()


def by_loops(priors: list[Tensor], boxes: list[list[float]], topk: int) -> list[int]:
    """Algorithm 1 of the paper, with the details of the released code."""

    def overlap(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
        return shared / (sum(areas) - shared)

    anchors = [a for level in priors for a in level.tolist()]
    labels, best = [len(boxes)] * len(anchors), [0.0] * len(anchors)
    for g, box in enumerate(boxes):
        candidates, start = [], 0
        for level in priors:
            index = range(start, start + len(level))
            start += len(level)

            def distance(i: int, box: list[float] = box) -> float:
                x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                a = anchors[i]
                return ((a[0] + a[2]) / 2 - x) ** 2 + ((a[1] + a[3]) / 2 - y) ** 2

            candidates += sorted(index, key=distance)[:topk]
        overlaps = {i: overlap(anchors[i], box) for i in candidates}
        threshold = statistics.mean(overlaps.values()) + statistics.stdev(overlaps.values())
        for i, iou in overlaps.items():
            x, y = (anchors[i][0] + anchors[i][2]) / 2, (anchors[i][1] + anchors[i][3]) / 2
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if iou >= threshold and inside and iou > best[i]:
                labels[i], best[i] = g, iou
    return labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("topk", [3, 9])
def test_it_follows_the_algorithm_written_out_in_loops(seed: int, topk: int):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(12, 2, generator=generator) * 80
    boxes = torch.cat((low, low + 8 + torch.rand(12, 2, generator=generator) * 70), dim=1).tolist()
    priors = grid(128, 128, num_levels=3)
    expected = by_loops(priors, boxes, topk)
    assert assigned(priors, boxes, (128, 128), topk=topk).tolist() == expected
    assert len(set(expected)) > 5
