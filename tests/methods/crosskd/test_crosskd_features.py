"""What CrossKD gives to the rest of the teacher's tower: at every depth, of each branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dense_kd import CrossKD
from dense_kd.detectors.base.heads import PRE_RELU
from dense_kd.methods.crosskd import ALIGN_ON
from helpers.builders import batch, tiny_gfl, tiny_retinanet
from helpers.feature_cases import distill

DEPTHS = [{"cls": cls, "bbox": bbox} for cls in range(3) for bbox in range(3)]
"""Of towers of two blocks."""
CASES = [(x, on) for x in DEPTHS for on in ALIGN_ON if any(x.values()) or on == "post_relu"]


def given_to_the_teacher(make: Any, channels: int = 16, **options: Any):
    """The method, both passes, and {branch: L x (N, C, Hl, Wl)} that the teacher resumes from."""
    method = CrossKD(**options)
    model = distill(make(), make(seed=1, channels=channels), method)
    seen = {}
    forward, resume = method.forward, model.teacher.resume

    def keep_passes(student, teacher, step):
        seen["passes"] = student, teacher
        return forward(student, teacher, step)

    def keep_taps(features, taps, *rest):
        seen["taps"] = taps
        return resume(features, taps, *rest)

    method.forward, model.teacher.resume = keep_passes, keep_taps
    model(batch())
    return method, *seen["passes"], seen["taps"]


def aligned(feature: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The formula of the docstring, channel by channel."""
    channels = []
    for ours, theirs in zip(feature.unbind(dim=1), reference.unbind(dim=1)):
        share = (ours - ours.mean()) / (ours.std() + 1e-6)
        channels.append(share * theirs.std() + theirs.mean())
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("make", [tiny_gfl, tiny_retinanet])
@pytest.mark.parametrize(("depth", "align_on"), CASES)
def test_the_statistics_are_the_teachers_and_a_relu_follows_all_blocks_but_not_the_pyramid(
    make: Any, depth: dict[str, int], align_on: str
):
    method, student, teacher, given = given_to_the_teacher(make, depth=depth, align_on=align_on)
    for branch, i in depth.items():
        before = align_on == "pre_relu" and i > 0
        tap = (branch + PRE_RELU if before else branch, i)
        assert method.needs.taps.count(tap) == 1
        for level, found in enumerate(given[branch]):
            expected = aligned(student.taps[tap][level], teacher.taps[tap][level])
            assert (expected < 0).any()
            expected = expected.relu() if i > 0 else expected
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_without_alignment_the_features_are_given_as_they_are(depth: int):
    _, student, _, given = given_to_the_teacher(tiny_gfl, depth=depth, align=False)
    for branch in ("cls", "bbox"):
        for level, found in enumerate(given[branch]):
            assert torch.equal(found, student.taps[branch, depth][level])
            assert (found < 0).any() == (depth == 0)


def test_what_is_aligned_before_the_relu_is_rectified_without_alignment_too():
    _, student, _, given = given_to_the_teacher(
        tiny_gfl, channels=24, depth=1, align=False, align_on="pre_relu"
    )
    for branch in ("cls", "bbox"):
        for found in given[branch]:
            assert (found >= 0).all() and (found == 0).any()


@pytest.mark.parametrize("align", [True, False])
def test_features_of_another_width_are_adapted_before_their_alignment(align: bool):
    method, student, teacher, given = given_to_the_teacher(
        tiny_gfl, channels=24, depth={"cls": 0, "bbox": 2}, align=align
    )
    for branch, depth in method.depth.items():
        # The alignment takes out what a bias adds.
        assert (method.adapters[branch].bias is None) == align
        for level, found in enumerate(given[branch]):
            expected = method.adapters[branch](student.taps[branch, depth][level])
            if align:
                expected = aligned(expected, teacher.taps[branch, depth][level])
            expected = expected.relu() if depth else expected
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_alignment_before_a_relu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="align_on='pre_relu' does nothing with depth=0"):
        CrossKD(depth=0, align_on="pre_relu")
    options = {"depth": 1, "align": False, "align_on": "pre_relu"}
    with pytest.raises(ValueError, match="align_on='pre_relu' does nothing with align=False"):
        distill(tiny_gfl(), tiny_gfl(seed=1), CrossKD(**options))
