"""The valuable localisation region of LD, by hand and against its original implementation."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import distance_box_iou

from dense_kd.benchmark.memory import peak_of_tensors
from dense_kd.losses import elementwise_diou
from dense_kd.methods.base import objects
from dense_kd.methods.base.objects import inside_any_box
from dense_kd.methods.ld import valuable_region as module
from dense_kd.methods.ld.valuable_region import valuable_region
from helpers.builders import assert_close
from helpers.ld_reference import GFLReference

SIZE = (10_000, 10_000)
NONE = torch.zeros(0, 4)
WEIGHT_NOISE = 1e-6  # ten roundings; none was measured


@pytest.mark.parametrize("name", ["ld_gfl", "bckd_gfl"])
def test_region_and_weights_equal_the_original_implementation(name: str):
    reference = GFLReference(name)
    expected = torch.cat(reference.levels("vlr_region"), dim=1)
    for image, truth in enumerate(reference.ground_truth):
        found = valuable_region(reference.priors, truth.gt_boxes.tensor, truth.image_size)
        assert torch.equal(found > 0, expected[image] > 0) and (found > 0).sum() > 100
        assert_close(found, expected[image], WEIGHT_NOISE)


def test_the_region_of_the_paper_has_the_union_in_its_diou():
    reference = GFLReference()
    truth = reference.ground_truth[0]
    boxes = truth.gt_boxes.tensor
    anchors = torch.cat(reference.priors)
    found = valuable_region(reference.priors, boxes, truth.image_size, overlap="iou")
    # No anchor of the first image is in the padding: 9 of each level, or all of a smaller one.
    diou, iou = (
        distance_box_iou(boxes, anchors),
        module.elementwise_diou(boxes[:, None], anchors)[1],
    )
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    weights = torch.zeros(len(anchors))
    for box, d, o in zip(boxes, diou, iou):
        near, start = [], 0
        for level in reference.priors:
            distance = (centers[start : start + len(level)] - (box[:2] + box[2:]) / 2).norm(dim=1)
            near += (distance.argsort(stable=True)[:9] + start).tolist()
            start += len(level)
        threshold = o[near].mean() + o[near].std()
        inside = (d >= 0.25 * threshold) & (d < threshold)
        weights[inside] = torch.maximum(weights[inside], o[inside])
    assert_close(found, weights, 1e-5)
    code = valuable_region(reference.priors, boxes, truth.image_size)
    assert ((code > 0) != (found > 0)).sum() > 50


def squares(*centers: tuple[float, float], side: float = 8.0) -> torch.Tensor:
    points = torch.tensor(centers)
    return torch.cat((points - side / 2, points + side / 2), dim=1)


def test_a_region_by_hand():
    # IoU with the box: 1, 1/3, 1/7, 0; DIoU: 1, 1/3 - 16/208, 1/7 - 32/288, below 0.
    priors = [squares((8, 8), (12, 8), (12, 12), (40, 40))]
    boxes = squares((8, 8))
    near = torch.tensor([1, 1 / 3, 1 / 7, 0])
    threshold = near.mean() + near.std()
    assert 1 / 3 - 16 / 208 > 0.25 * threshold > 1 / 7 - 32 / 288
    found = valuable_region(priors, boxes, SIZE, overlap="iou")
    assert found.tolist() == pytest.approx([0, 1 / 3, 0, 0])
    # Intersections of a half and a quarter of an anchor: 1/2 - 16/208 and 1/4 - 32/288 = 0.139.
    found = valuable_region(priors, boxes, SIZE, low=0.1)
    assert found.tolist() == pytest.approx([0, 1 / 3, 1 / 7, 0])
    assert 0.1 * threshold < 1 / 4 - 32 / 288 < 0.25 * threshold
    found = valuable_region(priors, boxes, SIZE)
    assert found.tolist() == pytest.approx([0, 1 / 3, 0, 0])


def test_an_anchor_in_two_regions_has_the_larger_overlap():
    priors = [squares((8, 8), (12, 8), (12, 12), (40, 40))]
    near, far = squares((8, 8)), squares((13, 8))
    alone = [valuable_region(priors, b, SIZE, low=0.05) for b in (near, far)]
    assert (alone[0] > 0).logical_and(alone[1] > 0).any()
    both = valuable_region(priors, torch.cat((near, far)), SIZE, low=0.05)
    assert_close(both, torch.maximum(*alone), 1e-6)


def test_anchors_in_the_padding_are_in_no_region_and_no_candidates():
    reference = GFLReference()
    truth = reference.ground_truth[1]  # 89 x 117 in a batch of 128 x 160
    boxes = truth.gt_boxes.tensor
    found = valuable_region(reference.priors, boxes, truth.image_size)
    padded = torch.cat(reference.levels("label_weights"), dim=1)[1] == 0
    assert padded.sum() > 100 and (found[padded] == 0).all()
    cropped = [
        p[~q] for p, q in zip(reference.priors, padded.split([len(p) for p in reference.priors]))
    ]
    alone = valuable_region(cropped, boxes, truth.image_size, padding_multiple=None)
    assert torch.equal(found[~padded], alone)


@pytest.mark.parametrize("overlap", ["iou", "iof"])
def test_no_boxes_no_anchors_and_boxes_far_away_give_empty_regions(overlap: str):
    priors = [squares((8, 8), (16, 8)), squares((8, 8), side=64.0)]
    for boxes in (NONE, squares((5000, 5000))):
        found = valuable_region(priors, boxes, SIZE, overlap=overlap)
        assert found.tolist() == [0, 0, 0]
    assert valuable_region([NONE, NONE], squares((8, 8)), SIZE, overlap=overlap).shape == (0,)


def test_a_single_candidate_has_no_standard_deviation_and_is_in_no_region():
    assert valuable_region([squares((8, 8))], squares((9, 8)), SIZE).tolist() == [0]


def test_the_lower_bound_is_in_the_region_and_the_threshold_is_not():
    """The overlaps of equal anchors are the threshold, and have no deviation."""
    on_box = squares((4, 4), (4, 4))
    assert valuable_region([on_box], on_box[:1], SIZE).tolist() == [0, 0]
    at_bound = torch.tensor([[1.0, 2.0, 4.0, 3.0]]).repeat(2, 1)  # IoU 3/64, DIoU a quarter of it
    found = valuable_region([at_bound], on_box[:1], SIZE, overlap="iou")
    assert found.tolist() == [3 / 64, 3 / 64]


def test_the_result_does_not_depend_on_the_size_of_the_chunks(monkeypatch):
    reference = GFLReference()
    truth = reference.ground_truth[0]
    boxes = truth.gt_boxes.tensor
    expected = valuable_region(reference.priors, boxes, truth.image_size)
    inside = inside_any_box(reference.priors, boxes)
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", 1)
    assert torch.equal(valuable_region(reference.priors, boxes, truth.image_size), expected)
    assert torch.equal(inside_any_box(reference.priors, boxes), inside)


@pytest.mark.slow
def test_five_hundred_boxes_on_a_large_image_take_less_than_200_mebibytes():
    """All at once, the region takes 470, and which anchors are inside of a box 64."""
    priors = []
    for stride in (8, 16, 32, 64, 128):
        rows, columns = -(-800 // stride), -(-1344 // stride)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers = stride * torch.stack((x, y), dim=-1).view(-1, 2).float()
        half = torch.full_like(centers, 4 * stride)
        priors.append(torch.cat((centers - half, centers + half), dim=1))
    low = torch.rand(500, 2) * torch.tensor([1200.0, 700.0])
    boxes = torch.cat((low, low + 8 + torch.rand(500, 2) * 100), dim=1)

    def region() -> None:
        assert (valuable_region(priors, boxes, (800, 1344)) > 0).any()

    def inside() -> None:
        assert inside_any_box(priors, boxes).any()

    assert 10 < peak_of_tensors(region) / 2**20 < 200
    assert 1 < peak_of_tensors(inside) / 2**20 < 32


def test_points_in_any_box():
    priors = [squares((8, 8), (16, 8), (24, 8))]
    boxes = torch.tensor([[4.0, 4, 12, 12], [20, 0, 30, 30]])
    assert inside_any_box(priors, boxes).tolist() == [True, False, True]
    assert inside_any_box(priors, boxes[:1] + 4).tolist() == [False, False, False]  # on the border
    assert inside_any_box(priors, NONE).tolist() == [False, False, False]


def test_diou_is_torchvisions():
    reference = GFLReference()
    boxes = reference.ground_truth[0].gt_boxes.tensor
    anchors = torch.cat(reference.priors)
    diou, iou = elementwise_diou(boxes[:, None], anchors[None])
    assert_close(diou, distance_box_iou(boxes, anchors), 1e-5)
    assert (diou <= iou).all()
