"""Prediction-guided weighting on single images: its formulas by hand, and where it has little."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dense_kd.detectors.assignment.locations import (
    not_in_padding,
    num_on_image,
    on_images,
)
from dense_kd.methods.base import objects
from dense_kd.methods.pgd.released import released_points_in_boxes, released_weights
from dense_kd.methods.pgd.weighting import (
    FOREGROUNDS,
    background_mask,
    foreground_weights,
    prediction_quality,
)
from helpers.largest_tensor import LargestTensor

GT = torch.tensor([[5.0, 3, 50, 30], [20, 10, 45, 44]])
CLASSES = torch.tensor([1, 2])
OBJECTS = [tuple(box) for box in GT.tolist()]


def wave(values: Tensor, frequency: float, phase: float = 0.0, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(frequency * values + phase)


def grid() -> tuple[Tensor, Tensor, Tensor]:
    """48 cells of stride 8 in 6 rows: points, scores of 3 classes, boxes."""
    i = torch.arange(48.0).double()
    x, y = 8 * (i % 8), 8 * (i // 8)
    logits = wave(torch.arange(144.0).double(), 0.41, 0.2, 2.0).view(48, 3)
    sides = (
        x - 8 - wave(i, 0.3, amplitude=4),
        y - 8 - wave(i, 0.2, math.pi / 2, 3),
        x + 16 + wave(i, 0.5, amplitude=4),
        y + 12 + wave(i, 0.4, math.pi / 2, 3),
    )
    points, boxes = torch.stack((x, y), dim=1), torch.stack(sides, dim=1)
    return points.float(), logits.sigmoid().float(), boxes.float()


def weights(strategy: str = "ours", topk: int = 5, gt: Tensor = GT, **options: Any) -> Tensor:
    arguments = {"iou_exponent": 0.8, "topk": topk, "strategy": strategy, **options}
    return foreground_weights(*grid(), gt, CLASSES[: len(gt)], **arguments)


def pyramid(height: int, width: int, offset: float) -> list[Tensor]:
    """Squares of a stride around the points of a batch padded to a multiple of 32."""
    rows, columns = -(-height // 32) * 4, -(-width // 32) * 4
    levels = []
    for stride in (8, 16, 32, 64, 128):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers = (torch.stack((x, y), dim=-1).view(-1, 2) + offset) * stride
        levels.append(torch.cat((centers - stride / 2, centers + stride / 2), dim=1))
        rows, columns = -(-rows // 2), -(-columns // 2)
    return levels


def inside(index: int, box: tuple[float, ...]) -> bool:
    x, y = 8 * (index % 8), 8 * (index // 8)
    return box[0] < x < box[2] and box[1] < y < box[3]


def test_quality_is_the_weighted_geometric_mean_of_score_and_iou():
    scores = torch.tensor([[0.25, 0.5], [0.81, 0.1]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]])
    gt = torch.tensor([[0.0, 0, 10, 10]])
    quality = prediction_quality(scores, boxes, gt, torch.tensor([0]), 0.5)
    assert quality.tolist()[0] == pytest.approx([0.5 * 1, 0.9 * 0.5**0.5])
    assert prediction_quality(scores, boxes, gt, torch.tensor([1]), 1.0).tolist()[0] == [1, 0.5]


def test_released_weights_are_those_worked_out_for_a_grid():
    """The five best: 27 26 17 12 11 of the first object, 27 36 20 28 35 of the second."""
    still = torch.zeros(2, 5, 2)
    options = {"iou_exponent": 0.8, "topk": 5, "jitter": still}
    expected = {
        11: 0.532085, 12: 0.330502, 17: 0.217880, 20: 0.263597, 26: 0.532085, 27: 0.367879,
        28: 0.716531, 35: 0.367879, 36: 0.263597,
    }  # fmt: skip
    found = released_weights(*grid(), GT, CLASSES, transposed=False, **options)
    assert found.nonzero().flatten().tolist() == list(expected)
    assert found[found > 0].tolist() == pytest.approx(list(expected.values()), abs=2e-6)
    swapped = released_weights(*grid(), GT, CLASSES, transposed=True, **options)
    assert sorted(set(expected) - set(swapped.nonzero().flatten().tolist())) == [12, 20]


@pytest.mark.parametrize(("drawn", "pixels"), [(0.0, -0.05), (0.5, 0.0), (1.0, 0.05)])
def test_released_points_are_moved_by_at_most_a_twentieth_of_a_pixel(drawn, pixels, monkeypatch):
    options = {"iou_exponent": 0.8, "topk": 5, "transposed": False}
    expected = released_weights(
        *grid(), GT, CLASSES, jitter=torch.full((2, 5, 2), pixels), **options
    )
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, drawn))
    found = released_weights(*grid(), GT, CLASSES, **options)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_transposed_points_are_looked_for_at_y_and_x():
    points, box = torch.tensor([[30.0, 5.0], [5.0, 30.0]]), torch.tensor([[20.0, 0, 40, 10]])
    assert released_points_in_boxes(points, box, False).tolist() == [[True, False]]
    assert released_points_in_boxes(points, box, True).tolist() == [[False, True]]


def best_of(box: tuple[float, ...], label: int, topk: int) -> tuple[list[int], list[float]]:
    """The best locations in the box by a full sort, and their quality."""
    _, scores, boxes = grid()
    quality = prediction_quality(
        scores, boxes, torch.tensor([box]), torch.tensor([label]), 0.8
    ).flatten()
    order = sorted((i for i in range(48) if inside(i, box)), key=lambda i: -quality[i].item())
    return order[:topk], [quality[i].item() for i in order[:topk]]


def gaussian(points: list[tuple[float, float]]) -> list[float]:
    n = len(points)
    mx, my = (sum(p[axis] for p in points) / n for axis in (0, 1))
    xx = sum((x - mx) ** 2 for x, _ in points) / n + 1e-4
    yy = sum((y - my) ** 2 for _, y in points) / n + 1e-4
    xy = sum((x - mx) * (y - my) for x, y in points) / n
    det = xx * yy - xy * xy
    return [
        math.exp(
            -(yy * (x - mx) ** 2 - 2 * xy * (x - mx) * (y - my) + xx * (y - my) ** 2) / det / 2
        )
        for x, y in points
    ]


@pytest.mark.parametrize("topk", [1, 2, 5, 1000])
def test_the_best_locations_in_an_object_are_weighted_by_a_gaussian_through_them(topk: int):
    expected = [0.0] * 48
    for box, label in zip(OBJECTS, (1, 2)):
        chosen, _ = best_of(box, label, topk)
        for i, weight in zip(chosen, gaussian([(8 * (i % 8), 8 * (i // 8)) for i in chosen])):
            expected[i] = max(expected[i], weight)
    assert weights(topk=topk).tolist() == pytest.approx(expected, abs=1e-5)
    if topk == 1:
        assert set(expected) == {0, 1}


def test_equal_weights_are_one_at_the_best_and_the_quality_is_itself():
    best = {box: best_of(box, label, 5) for box, label in zip(OBJECTS, (1, 2))}
    chosen = sorted({i for indices, _ in best.values() for i in indices})
    equal = weights("topk")
    assert equal.nonzero().flatten().tolist() == chosen and set(equal.tolist()) == {0, 1}
    expected = [0.0] * 48
    for box, label in zip(OBJECTS, (1, 2)):
        for i, quality in zip(*best_of(box, label, 48)):
            expected[i] = max(expected[i], quality)
    assert weights("quality").tolist() == pytest.approx(expected, abs=1e-6)


def test_kernel_density_is_highest_where_the_best_locations_are_dense():
    chosen, _ = best_of(OBJECTS[0], 1, 5)
    points = [(8.0 * (i % 8), 8.0 * (i // 8)) for i in chosen]
    covariance = torch.cov(torch.tensor(points).double().t(), correction=0)
    covariance = (covariance + 1e-4 * torch.eye(2)) * 5 ** (-1 / 3)
    kernel = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    at = torch.tensor(points).double()
    density = kernel.log_prob(at[:, None] - at).exp().sum(dim=1)
    found = weights("kde", gt=GT[:1])
    expected = (density / density.max()).tolist()
    assert found[chosen].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.count_nonzero() == 5


@pytest.mark.parametrize("strategy", ["ours", "kde", "topk"])
def test_locations_beyond_those_in_an_object_add_nothing(strategy: str):
    count = sum(inside(i, OBJECTS[0]) for i in range(48))
    found = weights(strategy, topk=48, gt=GT[:1])
    assert found.count_nonzero() == count
    torch.testing.assert_close(found, weights(strategy, topk=count, gt=GT[:1]))


def test_locations_of_no_quality_are_among_the_best_where_there_are_no_others():
    points, scores, boxes = grid()
    options = {"iou_exponent": 0.8, "topk": 48, "strategy": "topk"}
    found = foreground_weights(points, scores, boxes + 1e4, GT[:1], CLASSES[:1], **options)
    assert found.tolist() == [float(inside(i, OBJECTS[0])) for i in range(48)]


def test_masks_of_boxes_do_not_look_at_predictions():
    for index in range(48):
        x, y = 8 * (index % 8), 8 * (index // 8)
        gaussians = [
            math.exp(
                -((x - (b[0] + b[2]) / 2) ** 2) / (2 * ((b[2] - b[0]) / 4) ** 2)
                - (y - (b[1] + b[3]) / 2) ** 2 / (2 * ((b[3] - b[1]) / 4) ** 2)
            )
            for b in OBJECTS
            if inside(index, b)
        ]
        assert weights("box")[index] == bool(gaussians)
        assert weights("box_gaussian")[index].item() == pytest.approx(
            max(gaussians, default=0.0), rel=1e-5
        )
    # The fifths are (23, 13.8, 32, 19.2) and (30, 23.6, 35, 30.4).
    assert weights("center").nonzero().flatten().tolist() == [19, 28]


@pytest.mark.parametrize("width, height", [(400.0, 100.0), (100.0, 400.0), (200.0, 200.0)])
def test_the_centre_of_an_object_is_a_fifth_of_its_width_and_height(width: float, height: float):
    y, x = torch.meshgrid(torch.arange(420.0), torch.arange(420.0), indexing="ij")
    points = torch.stack((x, y), dim=-1).view(-1, 2) + 0.5
    gt = torch.tensor([[7.0, 9, 7 + width, 9 + height]])
    arguments = (points, torch.ones(len(points), 1), points.repeat(1, 2), gt, CLASSES[:1] * 0)
    found = foreground_weights(*arguments, iou_exponent=0.8, strategy="center")
    chosen = points[found > 0]
    assert len(chosen) == 0.04 * width * height
    assert chosen.mean(dim=0).tolist() == pytest.approx([7 + width / 2, 9 + height / 2])


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_every_cell_of_an_image_that_fills_its_batch_is_on_the_image(offset: float):
    for height, width in ((800, 1333), (800, 1066), (608, 1333), (480, 720)):
        levels = pyramid(height, width, offset)
        assert on_images(levels, [(height, width)], 32).all()
        assert not_in_padding(levels[0], (height, width), 32).all()


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_cell_that_begins_beyond_an_image_is_not_on_it(offset: float):
    levels = pyramid(800, 1344, offset)
    expected = []
    for priors, stride in zip(levels, (8, 16, 32, 64, 128)):
        centers = (priors[:, :2] + priors[:, 2:]) / 2 - offset * stride
        expected.append((centers[:, 0] < 864) & (centers[:, 1] < 608))  # (600, 850), rounded up
    expected = torch.cat(expected)
    assert torch.equal(on_images(levels, [(600, 850)], 32)[0], expected) and not expected.all()
    assert on_images(levels, [(600, 850)], None).all()
    strides = [8, 16, 32, 64, 128]
    maps = [(-(-800 // stride), -(-1344 // stride)) for stride in strides]
    assert num_on_image(maps, strides, (600, 850), 32) == expected.sum()
    assert num_on_image(maps, strides, (600, 850), None) == len(expected)


def test_background_is_in_no_object():
    expected = [not any(inside(i, box) for box in OBJECTS) for i in range(48)]
    assert background_mask(grid()[0], GT).tolist() == expected
    assert background_mask(grid()[0], GT[:0]).all()


def test_a_location_on_a_side_is_background():
    for box in ([8.0, 8, 24, 24], [8.0, 12, 24, 18], [12.0, 8, 18, 24]):
        background = background_mask(grid()[0], torch.tensor([box]))
        assert (~background).nonzero().flatten().tolist() == [2 * 8 + 2]  # (16, 16)


@pytest.mark.parametrize("strategy", FOREGROUNDS)
def test_every_mask_is_finite_where_there_is_little_to_go_by(strategy: str):
    for gt in (
        GT[:0],
        torch.tensor([[9.0, 9, 12, 12]]),  # no location in it
        torch.tensor([[7.0, 7, 9, 9]]),  # one
        torch.tensor([[7.0, 7, 42, 9]]),  # a line
        torch.tensor([[100.0, 100, 120, 120]]),  # out of the map
    ):
        for topk in (1, 30):
            found = weights(strategy, topk, gt)
            assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
            occupied = [i for i in range(48) for box in gt.tolist() if inside(i, tuple(box))]
            assert (found.max() > 0) == bool(occupied), (gt, topk)
            assert set(found.nonzero().flatten().tolist()) <= set(occupied)


@pytest.mark.parametrize("strategy", FOREGROUNDS)
def test_an_object_without_area_at_a_location_has_no_weight(strategy: str):
    for side in ([8.0, 8, 8, 8], [8.0, 0, 8, 16], [0.0, 8, 16, 8]):
        assert (weights(strategy, gt=torch.tensor([side])) == 0).all()


def test_locations_on_a_diagonal_far_from_the_origin_have_a_covariance():
    points = 1300 + 8 * torch.arange(10.0)[:, None].expand(10, 2)
    boxes = torch.cat((points - 40, points + 40), dim=1)
    gt = torch.tensor([[1290.0, 1290, 1380, 1380]])
    found = foreground_weights(
        points, torch.full((10, 1), 0.5), boxes, gt, torch.tensor([0]), iou_exponent=0.8
    )
    expected = gaussian([tuple(p) for p in points.double().tolist()])
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_of_several_anchors_at_a_location_the_best_counts():
    points, scores, boxes = grid()
    factors = wave(torch.arange(48.0), 1.7, amplitude=0.4)[:, None] + 0.5
    worse = (scores * factors, boxes + 5)
    both = [torch.stack(pair, dim=1).flatten(0, 1) for pair in zip(worse, (scores, boxes))]
    for strategy in ("ours", "topk"):
        options = {"iou_exponent": 0.0, "topk": 5, "strategy": strategy}  # the score alone
        alone = foreground_weights(points, scores, boxes, GT, CLASSES, **options)
        found = foreground_weights(points, *both, GT, CLASSES, **options)
        assert torch.equal(found, alone)


@pytest.mark.parametrize("strategy", FOREGROUNDS)
def test_weights_do_not_depend_on_how_many_objects_are_compared_at_a_time(strategy, monkeypatch):
    together = weights(strategy)
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", 1)
    torch.testing.assert_close(weights(strategy), together, rtol=1e-6, atol=0)
    assert background_mask(grid()[0], GT).sum() == 48 - (weights("box") > 0).sum()


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="strategy='gauss': expected one of"):
        weights("gauss")


@pytest.mark.parametrize("strategy", ["ours", "kde", "box_gaussian", "released"])
def test_five_hundred_objects_need_no_more_memory_than_a_few(strategy: str):
    """At 800 x 1344, where 500 objects and 22,400 locations are 11 million pairs."""
    points = 1000 * torch.rand(22400, 2)
    scores, boxes = torch.rand(22400, 80), torch.cat((points - 40, points + 60), dim=1)
    low = 900 * torch.rand(500, 2)
    gt = torch.cat((low, low + 100), dim=1)
    arguments = (points, scores, boxes, gt, torch.arange(500) % 80)
    with LargestTensor() as largest:
        if strategy == "released":
            found = released_weights(*arguments, iou_exponent=0.8, topk=30, transposed=True)
        else:
            found = foreground_weights(*arguments, iou_exponent=0.8, strategy=strategy)
        background_mask(points, gt)
    assert found.isfinite().all() and found.max() > 0.5
    assert 2**22 < largest.bytes <= 2**24  # (M, P, 2) of a chunk of objects; all would be 85 MiB
