"""The running counts of DDOD against values of mmdetection's, over one and over two calls.

What DDOD has in common with ATSS and GFL is compared in test_square_anchors_golden.py.
"""

from __future__ import annotations

import pytest
import torch

from dense_kd.detectors import DDOD, DDODHead
from dense_kd.detectors.ddod import level_factors
from helpers.builders import assert_close
from helpers.mmdet_reference import LOSS_NOISE, Reference, head_arguments, make_reference

COUNTS = {"a": ([51, 45], [8, 8]), "b": ([19, 18], [0, 0])}
"""{case: positives of (class, box) on P3, and on P4}; the other levels have none."""


@pytest.fixture
def reference() -> Reference:
    return make_reference("det_ddod", DDODHead(**head_arguments("det_ddod")), DDOD)


def stored_counts(reference: Reference, case: str) -> torch.Tensor:
    prefix = f"{case}/state"
    keys = [f"{prefix}/{branch}_num_pos_samples_per_level" for branch in ("cls", "reg")]
    return torch.stack([reference.data[key] for key in keys]).long()


@pytest.mark.parametrize("case", ["a", "b"])
def test_counts_after_a_call_equal_the_reference(reference: Reference, case: str):
    targets = reference.targets(reference.run(), case)
    assert torch.equal(reference.model.level_positives, stored_counts(reference, case))
    assert reference.model.level_positives[1].sum() == 0
    on_p3, on_p4 = COUNTS[case]
    expected = [level_factors(torch.tensor([on_p3[0], on_p4[0], 0, 0, 0]))]
    expected.append(level_factors(torch.tensor([sum(on_p3), sum(on_p4), 0, 0, 0])))
    assert torch.equal(targets.level_factors, torch.stack(expected))


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_counts_and_losses_go_on_over_two_calls(reference: Reference, order: str):
    model = reference.model
    dense = reference.run()
    alone = {}
    for case in order:  # the weights in the stored losses, whose counts began at 0
        alone[case] = reference.targets(dense, case).level_factors
        model.level_positives.zero_()
    reference.targets(dense, order[0])
    targets = reference.targets(dense, order[1])
    total = stored_counts(reference, "a") + stored_counts(reference, "b")
    assert torch.equal(model.level_positives, total)

    case = order[1]
    losses = model.losses(dense, targets)
    changed = 0
    for name, theirs, row in (
        ("loss_cls", "loss_cls", 0),
        ("loss_box_reg", "loss_bbox", 1),
        ("loss_iou", "loss_iou", 1),
    ):
        stored = reference.data[f"{case}/loss/{theirs}"]  # (L,)
        expected = (stored / alone[case][row] * targets.level_factors[row]).sum()
        assert_close(losses[name], expected, LOSS_NOISE, name)
        changed += int((expected - stored.sum()).abs() > 1e-4)
    assert changed >= 1


def test_defaults_of_both_assigners_are_those_of_the_reference(reference: Reference):
    model = reference.model
    for assigner, name in (
        (model.assigner, "assigner"),
        (model.regression_assigner, "reg_assigner"),
    ):
        expected = reference.meta["train_cfg"][name]
        assert (assigner.topk, assigner.alpha) == (expected["topk"], expected["alpha"])
