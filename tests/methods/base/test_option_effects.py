"""No option is accepted and ignored: beside every choice of the others, one that is changed changes
the losses or their gradients, or is refused with what it does nothing beside."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch

from dense_kd import Distiller, methods
from dense_kd.methods import Step
from dense_kd.outputs import DensePass
from helpers.builders import batch
from helpers.feature_cases import distill
from helpers.method_cases import PAIRS, Pair
from helpers.method_options import NOT_TRIED, Probe, contexts, options_of, other_values

GIVEN = {
    "PGD": {"topk": 3},
    "TID": {"cls_part": 0.3, "gamma": 0.2, "nms_thresh": 0.3, "vicinity_width": 1.0},
}
"""Where an image has few points, what lets options matter that choose some of many."""
IGNORED = {
    ("KD", "anchors"): "a teacher with one anchor per location has no better one",
    ("PGD", "beta"): "the weight of a term that is not there without the class branch",
    ("PGD", "gamma"): "the weight of a term that is not there without the box branch",
    ("FitNet", "always_adapt"): "the widths differ, so there are adapters anyway",
}
"""Options that only other detectors give something to do."""
IMAGES = 3


@functools.cache
def _seen(make: Any) -> tuple[Distiller, tuple[DensePass, DensePass, Step]]:
    """A distiller of two such detectors, and a step of it, whose passes are leaves of the graph.
    The images differ in their padding, and boxes are predicted near objects."""
    student = make(num_levels=5, width=4)
    teacher = make(seed=1, num_levels=5, width=4, channels=24)
    probe = Probe(student.head.depth)
    model = distill(student, teacher, probe)
    inputs = (batch() + batch(seed=1))[:IMAGES]
    model(inputs)
    ours, theirs, step = probe.seen
    truth = [image.gt_boxes.tensor for image in step.ground_truth]
    generator = torch.Generator().manual_seed(0)
    return model, (
        _leaves(ours, student, truth, 1.0, generator),
        _leaves(theirs, teacher, truth, 0.6, generator),
        step,
    )


def _leaves(dense, detector, truth, noise, generator) -> DensePass:
    """The pass with boxes that are those of objects, but for ``noise`` in units of their size."""

    def leaves(maps):
        return None if maps is None else [x.detach().clone().requires_grad_() for x in maps]

    deltas = []
    for priors, old in zip(dense.priors, dense.deltas):
        levels = []
        for boxes in truth:
            centers = (priors[:, :2] + priors[:, 2:]) / 2
            near = torch.cdist(centers, (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(dim=1)
            size = (boxes[near, 2:] - boxes[near, :2]).repeat(1, 2)
            moved = noise * size * torch.rand(len(near), 4, generator=generator)
            levels.append(detector.box2box_transform.get_deltas(priors, boxes[near] + moved))
        deltas.append(torch.stack(levels).to(old).nan_to_num())
    return dataclasses.replace(
        dense,
        features=leaves(dense.features),
        logits=leaves(dense.logits),
        deltas=leaves(deltas),
        quality=leaves(dense.quality),
        distribution=leaves(dense.distribution),
        taps={tap: leaves(maps) for tap, maps in dense.taps.items()},
    )


class Result:
    """The losses with some options and, when asked for, their gradients."""

    def __init__(self, name: str, pair: Pair, options: dict[str, Any]):
        self.run = functools.partial(_run, name, pair, options)
        with torch.no_grad():
            self.losses, _ = self.run()

    @functools.cached_property
    def gradients(self) -> list[torch.Tensor | None]:
        losses, leaves = self.run()
        return torch.autograd.grad(sum(losses), leaves, allow_unused=True)

    def equals(self, other: Result) -> bool:
        return _equal(self.losses, other.losses) and _equal(self.gradients, other.gradients)


def _run(
    name: str, pair: Pair, options: dict[str, Any]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The losses of the method, and the maps of the student that they may have a gradient to."""
    model, (student, teacher, step) = _seen(pair.build)
    method = getattr(methods, name)(**options)
    method.check(model.student, model.teacher.model)
    torch.default_generator.manual_seed(0)
    method.prepare(model.student, model.teacher.model)
    torch.default_generator.manual_seed(0)
    student = dataclasses.replace(student)  # without what the last method has decoded
    losses = list(method(student, teacher, step).values())
    maps = [student.features, student.logits, student.deltas, *student.taps.values()]
    return losses, [x for levels in maps + [student.distribution or []] for x in levels]


_RESULTS: dict[tuple[Any, ...], Result] = {}


def _result(name: str, pair: Pair, options: dict[str, Any]) -> Result:
    """That of the options, of which several tests may ask for the same."""
    every = {**options_of(name), **options}
    key = (name, pair.build, repr(sorted(every.items())))
    if key not in _RESULTS:
        _RESULTS[key] = Result(name, pair, options)
    return _RESULTS[key]


def _equal(a: list[torch.Tensor | None], b: list[torch.Tensor | None]) -> bool:
    def close(x, y):
        if x is None or y is None:
            return x is y
        return torch.allclose(x, y, rtol=1e-5, atol=1e-12)

    return len(a) == len(b) and all(map(close, a, b))


@pytest.mark.parametrize(("name", "variant", "choice"), contexts())
def test_an_option_does_something_or_is_refused(name, variant, choice):
    pair = PAIRS[name][variant]
    given = {k: v for k, v in pair.options.items() if k == "teacher" or k not in NOT_TRIED}
    given |= choice
    try:
        usual, given = _usual(name, pair, given)
    except ValueError:  # the choice is refused, by these detectors or beside the other options
        assert choice
        return
    idle = []
    for option, default in options_of(name).items():
        if option in choice or (name, option) in IGNORED:
            continue
        others = other_values(name, option, given.get(option, default))
        refused = 0
        for other in others:
            try:
                if not _result(name, pair, {**given, option: other}).equals(usual):
                    break
            except ValueError as error:
                refused += 1
                if "does nothing" in str(error):
                    break
        else:
            if refused < len(others):
                idle.append(option)
    assert not idle, f"{idle} are accepted and ignored"


def _usual(name: str, pair: Pair, given: dict[str, Any]) -> tuple[Result, dict[str, Any]]:
    """The result that others are compared with, and its options, with those of GIVEN that have an
    effect beside them."""
    for option, value in GIVEN.get(name, {}).items():
        if option in given:
            continue
        try:
            _result(name, pair, {**given, option: value})
        except ValueError as error:
            if "does nothing" in str(error):
                continue
            raise
        given = {**given, option: value}
    return _result(name, pair, given), given


@pytest.mark.parametrize(
    ("name", "weights", "option", "reason"),
    [
        ("KD", {"cls_weight": 0}, {"temperature": 4.0}, "cls_weight=0 and loc_loss='giou'"),
        ("KD", {"cls_weight": 0}, {"cls_loss": "softmax"}, "cls_weight=0"),
        ("KD", {"loc_weight": 0}, {"loc_loss": "l1"}, "loc_weight=0"),
        ("LD", {"main_weight": 0, "vlr_weight": 0}, {"normalize": "images"}, "main_weight=vlr_"),
        ("LD", {"cls_weight": 0}, {"cls_temperature": 4.0}, "cls_weight=0"),
        ("LD", {"vlr_weight": 0}, {"vlr_region": "diou"}, "vlr_weight=0"),
        ("BCKD", {"loc_weight": 0}, {"loc_loss": "iou"}, "loc_weight=0"),
        ("CrossKD", {"loc_weight": 0}, {"loc_weighting": "uniform"}, "loc_weight=0"),
        ("FGD", {"fg_weight": 0, "bg_weight": 0}, {"box_scale": "stride"}, "fg_weight=bg_weight=0"),
        ("PGD", {"alpha": 0, "delta": 0.1}, {"level_step": 0.0}, "alpha=beta=0"),
    ],
)
def test_an_option_of_a_term_that_is_left_out_is_refused(name, weights, option, reason):
    (changed,) = option
    with pytest.raises(ValueError, match=f"{changed}=.* does nothing with {reason}"):
        getattr(methods, name)(**weights, **option)


def test_a_temperature_is_also_that_of_the_boxes_where_they_are_distributions():
    assert methods.KD(cls_weight=0.0, loc_loss="kl", temperature=4.0).temperature == 4
