"""The assigners on examples worked out by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from torch import Tensor

from dense_kd.detectors import FCOSAssigner, MaxIoUAssigner
from helpers.builders import instances


def test_anchors_are_labelled_by_their_overlap():
    assigner = MaxIoUAssigner(Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=False))
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 4.5], [0, 0, 10, 3], [50, 50, 60, 60.0]])
    truth = [instances((64, 64), [[0, 0, 10, 10]], [2]), instances((64, 64), [], [])]
    labels, boxes = assigner.assign([anchors[:1], anchors[1:]], truth, 3, [(64, 64)] * 2)
    assert labels.tolist() == [[2, -1, 3, 3], [3, 3, 3, 3]]
    assert boxes[0, 0].tolist() == [0, 0, 10, 10]


def test_all_best_anchors_of_a_box_are_positive_however_little_they_overlap_it():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [13, 20, 17, 30], [50, 50, 60, 60]])
    box = [8.0, 0, 22, 10]  # IoU 20 / 220 with the first two, 0 with the others
    for options in ({}, {"reassign_best_anchors": True}):
        assigner = MaxIoUAssigner(Matcher([0.4, 0.5], [0, -1, 1], True), **options)
        labels, _ = assigner.assign([anchors], [instances((64, 64), [box], [1])], 3, [(64, 64)])
        assert labels.tolist() == [[1, 1, 3, 3]]


@pytest.mark.parametrize(("reassign", "expected"), [(False, [0, 2, 0]), (True, [1, 2, 0])])
def test_an_anchor_serves_the_box_it_overlaps_most_or_the_box_it_is_the_best_of(reassign, expected):
    # IoU of the first anchor with the boxes is 1, 0.7 and 0; the others have their own box each,
    # but the third overlaps the first box with 0.5 and is the best of none.
    anchors = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 10, 5]])
    truth = instances((64, 64), [[0, 0, 10, 10], [0, 3, 10, 10], [40, 40, 50, 50]], [0, 1, 2])
    assigner = MaxIoUAssigner(
        Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        reassign_best_anchors=reassign,
    )
    labels, boxes = assigner.assign([anchors], [truth], 3, [(64, 64)])
    assert labels.tolist() == [expected]
    assert torch.equal(boxes[0], truth.gt_boxes.tensor[expected])


def test_reassigning_best_anchors_needs_low_quality_matches():
    with pytest.raises(ValueError, match="reassign_best_anchors=True.*allow_low_quality_matches"):
        MaxIoUAssigner(Matcher([0.5], [0, 1], False), reassign_best_anchors=True)


def nine_anchors(height: int, width: int, strides: list[int]) -> list[Tensor]:
    """RetinaNet's anchors on an image, level by level."""
    generator = DefaultAnchorGenerator(
        sizes=[[4 * stride * 2 ** (i / 3) for i in range(3)] for stride in strides],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=strides,
        offset=0.0,
    )
    maps = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in strides]
    return [boxes.tensor for boxes in generator(maps)]


# The corners of some anchors on the borders at 32, 64, 128 and 256 pixels are rounded inwards.
@pytest.mark.parametrize(
    ("size", "padded"), [((90, 1001), (96, 1024)), ((31, 60), (32, 64)), ((128, 230), (128, 256))]
)
def test_anchors_of_any_shape_are_ignored_where_their_location_is_in_the_padding(size, padded):
    height, width = 800, 1344
    priors = nine_anchors(height, width, [8, 16, 32, 64, 128])
    assigner = MaxIoUAssigner(Matcher([0.4, 0.5], [0, -1, 1], True), padding_multiple=32)
    labels, _ = assigner.assign(priors, [instances(size, [], [])], 3, [size])
    for stride, label in zip([8, 16, 32, 64, 128], labels[0].split([len(p) for p in priors])):
        valid = (label >= 0).view(-(-height // stride), -(-width // stride), 9)
        expected = torch.zeros_like(valid)
        expected[: -(-padded[0] // stride), : -(-padded[1] // stride)] = True
        assert torch.equal(valid, expected)
    everywhere = MaxIoUAssigner(Matcher([0.4, 0.5], [0, -1, 1], True))
    assert (everywhere.assign(priors, [instances(size, [], [])], 3, [size])[0] == 3).all()


def test_anchors_in_the_padding_are_the_best_of_no_box():
    # The last anchor overlaps the box most, but lies beyond the 32 x 32 of the image.
    anchors = torch.tensor([[0.0, 0, 20, 20], [20, 20, 24, 24], [20, 20, 46, 46]])
    truth = instances((32, 32), [[18.0, 18, 32, 32]], [2])
    matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True)
    for multiple, expected in ((None, [3, 3, 2]), (32, [3, 2, -1])):
        assigner = MaxIoUAssigner(matcher, padding_multiple=multiple)
        labels, _ = assigner.assign([anchors], [truth], 3, [(32, 32)])
        assert labels.tolist() == [expected]


def points(shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Priors of levels of (height, width) cells with strides 8, 16, ..."""
    strides = [8 * 2**level for level in range(len(shapes))]
    generator = DefaultAnchorGenerator(
        sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
    )
    return [boxes.tensor for boxes in generator([torch.zeros(1, 1, *shape) for shape in shapes])]


def assigned(
    priors: list[Tensor], boxes: list[list[float]], rule: str, radius: float | None = None
) -> list[Tensor]:
    """Labels per level; box i has class i."""
    assigner = FCOSAssigner(center_sampling_radius=radius, rule=rule)
    truth = instances((512, 512), boxes, list(range(len(boxes))))
    labels, _ = assigner.assign(priors, [truth], len(boxes))
    return list(labels[0].split([len(level) for level in priors]))


def at(labels: Tensor, row: int, column: int, width: int = 8) -> int:
    return int(labels[row * width + column])


RULES = pytest.mark.parametrize("rule", FCOSAssigner.RULES)


@RULES
def test_points_are_the_centers_of_their_cells(rule: str):
    priors = points([(2, 3)])[0]
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    assert centers.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    labels = assigned([priors], [[0, 0, 16, 8]], rule)[0]
    assert labels.tolist() == [0, 0, 1, 1, 1, 1]


@RULES
def test_the_smallest_box_that_holds_a_point_wins(rule: str):
    boxes = [[0, 0, 40, 40], [8, 8, 24, 24], [0, 0, 48, 48]]
    labels = assigned(points([(8, 8), (4, 4)]), boxes, rule)[0]
    assert at(labels, 1, 1) == 1  # the point (12, 12) is in all three
    assert at(labels, 0, 0) == 0  # (4, 4) is outside of the second
    assert at(labels, 5, 5) == 2  # (44, 44) is in the last only
    assert at(labels, 6, 6) == 3  # background


@RULES
def test_the_first_of_identical_boxes_wins(rule: str):
    labels = assigned(points([(8, 8)]), [[0, 0, 16, 16]] * 3, rule)[0]
    assert sorted(set(labels.tolist())) == [0, 3]


def test_areas_are_exact_in_mmdets_rule_and_in_steps_of_8_in_detectron2s():
    boxes = [[0, 0, 40, 40.05], [0, 0, 40, 40]]  # 1602 and 1600 square pixels
    assert at(assigned(points([(8, 8)]), boxes, "mmdet")[0], 0, 0) == 1
    assert at(assigned(points([(8, 8)]), boxes, "detectron2")[0], 0, 0) == 0


def test_the_ends_of_a_size_range_belong_to_both_levels_in_mmdets_rule_only():
    priors = points([(10, 10), (5, 5)])
    # From (4, 4) of the first level and (8, 8) of the second the farthest side is 64 pixels off.
    fine, coarse = [[0, 0, 68, 10]], [[0, 0, 72, 20]]
    assert at(assigned(priors, fine, "mmdet")[0], 0, 0) == 0
    assert at(assigned(priors, fine, "detectron2")[0], 0, 0) == 1
    assert at(assigned(priors, coarse, "mmdet")[1], 0, 0) == 0
    assert at(assigned(priors, coarse, "detectron2")[1], 0, 0) == 1


@RULES
@pytest.mark.parametrize(("extent", "level"), [(5, 0), (60, 0), (140, 1), (300, 2), (2000, 2)])
def test_a_level_serves_boxes_within_four_to_eight_strides(rule: str, extent: int, level: int):
    # The farthest side of a square is between half its extent and its extent away: up to 64 is the
    # first level's, up to 128 the second's, and all above the last one's.
    levels = assigned(points([(20, 20), (10, 10), (5, 5)]), [[0, 0, extent, extent]], rule)
    assert [bool((labels == 0).any()) for labels in levels] == [i == level for i in range(3)]


@RULES
def test_center_sampling_keeps_points_within_a_radius_in_strides(rule: str):
    priors, box = points([(8, 8)]), [[0, 0, 64, 64]]
    # Points are 4, 12, ... pixels from the centre (32, 32) on each axis.
    for radius, count in [(1.5, 4), (1.6, 16), (0.5, 0), (0.6, 4), (None, 64)]:
        assert (assigned(priors, box, rule, radius)[0] == 0).sum() == count, radius
    labels = assigned(priors, box, rule, 1.5)[0]
    assert {at(labels, row, column) for row in (3, 4) for column in (3, 4)} == {0}


@RULES
def test_center_sampling_stays_inside_the_box(rule: str):
    # The centre (20, 2) is within 12 pixels of points above and below this flat box.
    labels = assigned(points([(8, 8)]), [[0, 0, 40, 4.5]], rule, 1.5)[0]
    assert (labels == 0).nonzero().flatten().tolist() == [1, 2, 3]


def test_in_mmdets_rule_the_smallest_box_wins_also_below_a_pixel():
    boxes = [[3.6, 3.6, 4.4, 4.4], [3.8, 3.8, 4.2, 4.2], [3.7, 3.7, 4.3, 4.3]]  # around (4, 4)
    assert at(assigned(points([(8, 8)]), boxes, "mmdet")[0], 0, 0) == 1


@RULES
def test_a_point_on_a_side_of_a_box_is_not_inside(rule: str):
    for box in ([4, 4, 20, 20], [4, 11, 20, 13], [11, 4, 13, 20]):
        labels = assigned(points([(8, 8)]), [box], rule)[0]
        assert (labels == 0).nonzero().flatten().tolist() == [1 * 8 + 1]  # (12, 12)


@RULES
def test_boxes_without_area_are_never_matched(rule: str):
    boxes = [[4, 0, 4, 20], [0, 4, 20, 4], [4, 4, 4, 4]]
    assert (assigned(points([(8, 8)]), boxes, rule)[0] == 3).all()


def test_an_image_without_boxes_is_background():
    priors = points([(2, 2)])
    truth = [instances((16, 16), [], []), instances((16, 16), [[0, 0, 8, 8]], [1])]
    labels, boxes = FCOSAssigner().assign(priors, truth, num_classes=5)
    assert labels.tolist() == [[5, 5, 5, 5], [1, 5, 5, 5]]
    assert boxes.shape == (2, 4, 4) and boxes[1, 0].tolist() == [0, 0, 8, 8]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule='torch'.*detectron2.*mmdet"):
        FCOSAssigner(rule="torch")
