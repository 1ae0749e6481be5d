"""PGD in the mode of its released code, against that code."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from dense_kd import PGD
from dense_kd.methods.base.objects import points_in_boxes
from dense_kd.methods.pgd import pgd
from dense_kd.methods.pgd.released import released_normalization, released_weights
from dense_kd.methods.pgd.terms import bbox_terms, cls_terms, normalize_per_image
from dense_kd.methods.pgd.weighting import (
    best_locations,
    foreground_weights,
    prediction_quality,
)
from helpers.builders import assert_close, golden, golden_config
from helpers.pgd_reference import NUM_LEVELS, TOPK, MapsReference

UNIT = list(product(("anchor", "free"), (("topk9_alpha0.8", 9, 0.8), ("topk30_alpha0.6", 30, 0.6))))
# Ten times what was measured: 3.6e-7, 4.9e-7, 9.1e-8 and 1.5e-7.
WEIGHT_NOISE, MASK_NOISE, LOSS_NOISE, GRADIENT_NOISE = 4e-6, 5e-6, 1e-6, 2e-6
HYPER = golden_config("pgd_losses", "hyper")
ALPHA, BETA, GAMMA, DELTA, LEVEL, TAU = (
    HYPER[key] for key in ("alpha", "beta", "gamma", "delta", "loss_weight", "temp_s")
)


def unit(kind: str) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    data = golden("pgd_pgw_unit")
    points = data["points"]
    if kind == "anchor":
        points = (data["anchors"][:, :2] + data["anchors"][:, 2:]) / 2
    predictions = (points, data["cls_logits"].sigmoid(), data["bbox_preds"])
    return data, (*predictions, data["gt_bboxes"], data["gt_labels"])


@pytest.mark.parametrize("jitter", ["zero", "rand"])
@pytest.mark.parametrize("kind, setting", UNIT)
def test_released_weights_equal_the_original_implementation(kind: str, setting, jitter: str):
    name, topk, exponent = setting
    data, arguments = unit(kind)
    key = f"{kind}/{name}_{jitter}"
    moved = (data[f"{key}/rand"] - 0.5) * 0.1 if jitter == "rand" else torch.zeros(5, topk, 2)
    options = {"iou_exponent": exponent, "topk": topk, "transposed": kind == "free"}
    weights = released_weights(*arguments, jitter=moved, **options)
    assert_close(weights, data[f"{key}/w"], WEIGHT_NOISE)


def test_corrected_weights_equal_the_original_where_the_best_locations_are_in_the_object():
    """The original puts x and y right with anchors; for 9 locations some objects are such."""
    data, (points, scores, boxes, gt_boxes, gt_classes) = unit("anchor")
    _, chosen = best_locations(prediction_quality(scores, boxes, gt_boxes, gt_classes, 0.8), 9)
    whole = points_in_boxes(points, gt_boxes).gather(1, chosen).all(dim=1)  # (M,)
    assert 1 <= whole.sum() < len(gt_boxes)
    weights = foreground_weights(
        points, scores, boxes, gt_boxes[whole], gt_classes[whole], iou_exponent=0.8, topk=9
    )
    others = torch.zeros(len(points), dtype=torch.bool)
    others[chosen[~whole].flatten()] = True
    compared = (weights > 0) & ~others
    assert compared.sum() >= 4
    # 1e-4 square pixels more in the variances.
    expected = data["anchor/topk9_alpha0.8_zero/w"][compared]
    assert_close(weights[compared], expected, WEIGHT_NOISE)


@pytest.mark.parametrize("kind", ["zero", "rand"])
@pytest.mark.parametrize("name", TOPK)
def test_released_masks_equal_the_original_implementation(name: str, kind: str, monkeypatch):
    reference = MapsReference(name)
    jitters = iter(reference.jitters(kind))

    def jittered(*arguments, **options):
        return released_weights(*arguments, jitter=next(jitters), **options)

    monkeypatch.setattr(pgd, "released_weights", jittered)
    method = PGD(compat="released", topk=TOPK[name])
    assigners = reference.config["train_cfg"]["kd_assigner"]
    for branch, exponent in zip(("cls", "reg"), method.iou_exponents):
        stored = assigners[f"{branch}_assigner"]
        assert (stored["topk"], stored["alpha"]) == (method.topk, exponent)
    masks = method.masks(reference.teacher(), reference.ground_truth)
    assert next(jitters, None) is None
    pairs = (
        (masks.cls, f"cls_value_maps_{kind}"),
        (masks.bbox, f"reg_value_maps_{kind}"),
        (masks.background, "back_maps"),
    )
    for found, stored in pairs:
        expected = [x[:, 0] for x in reference.levels(stored)]
        assert [x.shape for x in found] == [x.shape for x in expected]
        flat, expected_flat = (torch.cat([x.flatten() for x in y]) for y in (found, expected))
        assert_close(flat, expected_flat, MASK_NOISE, stored)
        assert flat.max() > 0.5


@pytest.mark.parametrize("name", TOPK)
def test_correcting_the_released_errors_changes_the_masks(name: str):
    reference = MapsReference(name)
    masks = PGD(topk=TOPK[name]).masks(reference.teacher(), reference.ground_truth)
    found = torch.cat([x.flatten() for x in masks.cls])
    stored = torch.cat([x.flatten() for x in reference.levels("cls_value_maps_zero")])
    assert (found - stored).abs().max() > 0.1
    background = [x[:, 0] for x in reference.levels("back_maps")]
    # x and y are exchanged, and padding is not left out, for points only.
    equal = all(torch.equal(a, b) for a, b in zip(masks.background, background))
    assert equal == (name != "fcos")
    assert len(masks.bbox) == NUM_LEVELS


def loss_case(images: int):
    data = golden("pgd_losses")
    case = {k[3:]: v for k, v in data.items() if k.startswith(f"n{images}/")}
    case["S"].requires_grad_()
    return case, case["mask_fg"][:, 0], case["mask_bg"][:, 0]


MODES = [(1, normalize_per_image), (1, released_normalization), (2, released_normalization)]


@pytest.mark.parametrize("images, normalize", MODES)
def test_class_terms_and_gradients_equal_the_original_implementation(images: int, normalize):
    case, foreground, background = loss_case(images)
    cls, other, _ = normalize(foreground, foreground, background)
    terms = cls_terms(case["S"], case["T"], cls, other, TAU)
    for term, name in zip(terms, ("fg_loss", "bg_loss", "mask_loss")):
        assert_close(term, case[f"cls/{name}_unweighted"], LOSS_NOISE, name)
    loss = LEVEL * (ALPHA * terms[0] + BETA * terms[1]) + DELTA * terms[2]
    assert_close(loss, case["cls/loss"], LOSS_NOISE)
    (gradient,) = torch.autograd.grad(loss, case["S"])
    assert_close(gradient, case["cls/grad_S"], GRADIENT_NOISE)


@pytest.mark.parametrize("images, normalize", MODES)
def test_box_terms_and_gradients_equal_the_original_implementation(images: int, normalize):
    case, foreground, background = loss_case(images)
    _, _, share = normalize(foreground, foreground, background)
    feature, attention = bbox_terms(case["S"], case["T"], foreground, share, TAU)
    loss = GAMMA * feature + DELTA * attention
    assert_close(loss, case["reg/loss"], LOSS_NOISE)
    (gradient,) = torch.autograd.grad(loss, case["S"])
    assert_close(gradient, case["reg/grad_S"], GRADIENT_NOISE)


@pytest.mark.parametrize("images", [1, 2])
def test_a_mask_without_objects_gives_no_box_term(images: int):
    case, foreground, background = loss_case(images)
    nothing = torch.zeros_like(foreground)
    _, _, share = released_normalization(nothing, nothing, background)
    feature, attention = bbox_terms(case["S"], case["T"], nothing, share, TAU)
    assert GAMMA * feature + DELTA * attention == case["reg/loss_empty_mask"] == 0


def test_masks_of_each_image_give_the_mean_of_the_originals_single_images():
    case, foreground, background = loss_case(2)
    cls, other, _ = normalize_per_image(foreground, foreground, background)
    terms = cls_terms(case["S"], case["T"], cls, other, TAU)
    loss = LEVEL * (ALPHA * terms[0] + BETA * terms[1]) + DELTA * terms[2]
    assert_close(loss, case["cls/loss_each_image_alone"].mean(), LOSS_NOISE)
    assert loss < 0.6 * case["cls/loss"]  # which every image's mask is in twice
