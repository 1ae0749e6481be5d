"""CrossKD against the released implementation, in all its detectors: see golden/README.md."""

from __future__ import annotations

import pytest
import torch
from builders import assert_close
from crosskd_reference import DETECTORS, Reference

from dense_kd.detectors import DistanceCoder

TERMS = {
    "loss_cls": "loss_cls_kd",
    "loss_loc": "loss_reg_kd",
    "loss_quality": "losses_center_kd",
}
LEVELS = range(1, 5)  # of which predictions are stored; of features those of 1 and 2 are


@pytest.fixture(params=list(DETECTORS))
def reference(request) -> Reference:
    return Reference(request.param)


def test_losses_equal_the_reference(reference: Reference):
    losses = reference.losses()
    names = {ours: theirs for ours, theirs in TERMS.items() if f"loss/{theirs}" in reference.data}
    assert list(losses) == list(names)
    assert len(names) == (3 if reference.tag == "atss" else 2)
    for ours, theirs in names.items():
        assert losses[ours].item() == pytest.approx(reference.expected(theirs).item(), rel=1e-5)
    assert sum(losses.values()).item() == pytest.approx(
        reference.data["loss_kd_sum"].item(), rel=1e-5
    )


def test_cross_head_predictions_equal_the_reference(reference: Reference):
    cross = reference.cross()
    for level in LEVELS:
        expected = reference.stored_map(f"reused_cls/l{level}", 5)
        assert_close(cross.logits[level], expected, 2e-5, f"class, level {level}")
        if cross.quality is not None:
            expected = reference.stored_map(f"reused_ctr/l{level}", 1)[..., 0]
            assert_close(cross.quality[level], expected, 2e-5, f"quality, level {level}")
        if cross.distribution is not None:
            expected = reference.stored_map(f"reused_reg/l{level}", 4 * 17).unflatten(2, (4, 17))
            found = cross.distribution[level]
        elif "fcos" in reference.tag:  # pixels, with and without "norm_on_bbox"
            expected = reference.stored_map(f"reused_reg/l{level}", 4)
            coder = DistanceCoder(normalize_by_size=False)
            found = coder.get_deltas(cross.priors[level], cross.boxes[level])
        else:
            expected = reference.stored_map(f"reused_reg/l{level}", 4)
            found = cross.deltas[level]
        assert_close(found, expected, 2e-5, f"box, level {level}")


def test_distilled_features_equal_the_reference(reference: Reference):
    for branch, theirs in (("cls", "cls"), ("bbox", "reg")):
        tap = (branch, reference.method.depth[branch])
        for level in (1, 2):
            for dense, who in ((reference.student, "stu"), (reference.teacher, "tea")):
                expected = reference.data[f"{who}_{theirs}_hold/l{level}"]
                assert_close(dense.taps[tap][level], expected, 2e-5, f"{who} {tap} {level}")


def test_gradients_equal_the_reference(reference: Reference):
    total = sum(reference.losses().values())
    depth = reference.method.depth
    inputs = {"stu_fpn": reference.features}
    for branch, theirs in (("cls", "cls"), ("bbox", "reg")):
        inputs[f"stu_{theirs}_hold"] = reference.student.taps[branch, depth[branch]]
    names = [f"grad_kd/{name}/l{level}" for name in inputs for level in (1, 2)]
    tensors = [levels[level] for levels in inputs.values() for level in (1, 2)]
    head = reference.student_model.head
    names += [f"grad_kd/param/{tower}_convs.0.conv.weight" for tower in ("cls", "reg")]
    tensors += [head.cls_subnet[0].weight, head.bbox_subnet[0].weight]
    assert set(names) == {key for key in reference.data if key.startswith("grad_kd/")}
    for name, found in zip(names, torch.autograd.grad(total, tensors)):
        tolerance = 2e-2 if "param" in name else 1e-3
        assert_close(found, reference.data[name], tolerance, name)


def test_the_gradient_of_a_whole_step_equals_the_reference(reference: Reference):
    losses = reference.student_model.losses(reference.student, reference.step.targets)
    total = sum(losses.values()) + sum(reference.losses().values())
    found = torch.autograd.grad(total, reference.features[2])[0]
    expected = reference.data["grad_total/stu_fpn/l2"]
    if reference.config["loss_feat_kd"]:  # PKD beside it
        expected = expected - reference.data["grad_featkd/stu_fpn/l2"]
    assert_close(found, expected, 1e-3)


@pytest.mark.parametrize("options", [{"align_on": "pre_relu"}, {"align": False}], ids=str)
def test_other_alignments_give_other_losses(options: dict):
    reference = Reference("gfl", **options)
    assert abs(reference.losses()["loss_loc"] / reference.expected("loss_reg_kd") - 1) > 0.03
