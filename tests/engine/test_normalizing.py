"""``train.normalize=iteration``: accumulated batches are one batch of all their images."""

from __future__ import annotations

import copy
import functools
import logging

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from dense_kd import BCKD, PGD, CrossKD, Distiller, MethodSet, Teacher
from dense_kd.engine import Trainer
from dense_kd.engine.normalizing import measure
from dense_kd.normalizers import IterationNormalizers, over_iteration
from dense_kd.quantization import FakeQuantization
from helpers import builders
from helpers.builders import batch, tiny_backbone, tiny_fcos, tiny_retinanet
from helpers.feature_cases import distill
from helpers.method_cases import PAIRS, VARIANTS, build, images_with
from helpers.script_runs import assert_equal

DETECTORS = ("retinanet", "fcos", "atss", "gfl", "ddod", "autoassign")
RANDOM = {("MGD", "")}
"""Methods that draw another number for each batch."""


@functools.cache
def images() -> list:
    return images_with(
        [[5, 5, 40, 40], [20, 20, 60, 62]],
        [[2, 3, 30, 60]],
        [[10, 4, 50, 30], [33, 33, 63, 63], [1, 40, 20, 60]],
        [],
    )


def trained(model: nn.Module, batches: list, normalize: str) -> tuple[dict, dict]:
    """Losses of one step of all batches, and its gradients."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "loss_normalizer_momentum"):
            module.loss_normalizer_momentum = 0.0  # the start of the average is of one batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = Trainer(model, batches, optimizer, accumulate=len(batches), normalize=normalize)
    run.train(0, 1)
    losses = {k: v for k, (v, _) in run.storage.latest().items() if "loss" in k}
    return losses, {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def difference(model: nn.Module, normalize: str) -> float:
    """Of two batches from one of all images: the largest of the relative ones of the losses, and
    that of the gradient."""
    expected, gradients = trained(model, [images()], "batch")
    losses, found = trained(model, [images()[:2], images()[2:]], normalize)
    of_losses = [abs(losses[k] - v) / max(abs(v), 1e-6) for k, v in expected.items()]
    errors = sum((found[k] - v).square().sum() for k, v in gradients.items()).sqrt()
    norm = sum(v.square().sum() for v in gradients.values()).sqrt()
    return max(*of_losses, float(errors / norm))


@pytest.mark.parametrize("name", DETECTORS)
def test_losses_and_gradients_of_detectors_are_those_of_one_batch(name):
    model = getattr(builders, f"tiny_{name}")(num_levels=5, width=4)
    assert difference(model, "iteration") < 1e-5
    if name != "fcos":  # whose counts are equal here
        assert difference(model, "batch") > 1e-3


@pytest.mark.parametrize(("name", "variant"), [v for v in VARIANTS if v not in RANDOM])
def test_so_are_those_of_methods_unless_they_say_why_not(name, variant):
    check_that_it_says_whether(build(name, variant))


def check_that_it_says_whether(model: nn.Module) -> None:
    if model.kd.feature.unlike_one_batch() is None:
        assert difference(model, "iteration") < 1e-5
    else:
        assert difference(model, "iteration") > 1e-4


NOT_ALIGNED = {"align": False, "depth": 1}


@pytest.mark.parametrize(
    ("make", "method", "is_unlike"),
    [
        (builders.tiny_gfl, CrossKD(**NOT_ALIGNED), True),
        (builders.tiny_gfl, CrossKD(**NOT_ALIGNED, loc_loss="giou"), False),
        (builders.tiny_gfl, CrossKD(**NOT_ALIGNED, loc_weight=0.0), False),
        (builders.tiny_fcos, CrossKD(**NOT_ALIGNED), False),
        (builders.tiny_fcos, PGD(branches=["bbox"], compat="released"), True),
        (builders.tiny_fcos, PGD(branches=["bbox"]), False),
    ],
)
def test_a_method_says_so_whatever_its_options_are(make, method, is_unlike):
    model = distill(make(width=4), make(seed=1, width=4), method)
    assert (model.kd.feature.unlike_one_batch() is not None) == is_unlike
    check_that_it_says_whether(model)


def test_the_running_counts_of_ddods_levels_are_those_of_one_batch():
    def counts(batches: list, normalize: str) -> list:
        model = builders.tiny_ddod(num_levels=5, width=4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        run = Trainer(model, batches, optimizer, accumulate=len(batches), normalize=normalize)
        run.train(0, 1)
        return model.level_positives.tolist()

    one = counts([images()], "batch")
    assert counts([images()[:2], images()[2:]], "iteration") == one and sum(one[0]) > 5


def test_few_positives_in_all_batches_count_as_one():
    empty, one = images_with([]), images_with([[30, 30, 34, 34]])
    model = builders.tiny_gfl(num_levels=5, width=4)
    expected, _ = trained(model, [[*empty, *empty, *empty, *empty]], "batch")
    losses, _ = trained(model, [empty] * 4, "iteration")
    assert losses == pytest.approx(expected, rel=1e-5)
    expected, _ = trained(model, [[*empty, *one]], "batch")
    losses, _ = trained(model, [empty, one], "iteration")
    assert losses == pytest.approx(expected, rel=1e-5)


def test_measuring_leaves_no_trace():
    model = tiny_retinanet(num_levels=5, width=4)
    batches = [images()[:2], images()[2:]]
    state = torch.get_rng_state()
    start = float(model.loss_normalizer)
    run = Trainer(
        model, batches, torch.optim.SGD(model.parameters(), lr=0.0), accumulate=2,
        normalize="iteration",
    )  # fmt: skip
    run.train(0, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(run.storage.history("num_pos_anchors").values()) == 2  # of the batches, once each
    counts = run.storage.history("num_pos_anchors").values()
    mean = sum(count * 2 for count, _ in counts) / 2
    assert float(model.loss_normalizer) == pytest.approx(0.9 * start + 0.1 * mean)  # moved once


def test_measuring_does_not_move_the_statistics_of_batch_norms():
    model = tiny_fcos(backbone=tiny_backbone(norm="BN"))
    before = {key: value.clone() for key, value in model.named_buffers()}
    measure(IterationNormalizers(2), model.train(), [batch("usual")] * 2)
    assert_equal(dict(model.named_buffers()), before)


def test_ranges_of_maps_are_of_all_batches():
    ranges = {}
    for normalize in ("batch", "iteration"):
        torch.manual_seed(0)
        model = tiny_fcos(width=4)
        quantization = FakeQuantization(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        batches = [images()[:2], images()[2:]]
        Trainer(model, batches, optimizer, accumulate=2, normalize=normalize).train(0, 1)
        ranges[normalize] = quantization.lowest.clone(), quantization.highest.clone()
    assert_equal(ranges["iteration"], ranges["batch"])


@pytest.mark.parametrize("options", [dict(accumulate=2), dict(accumulate=2, normalize="iteration")])
def test_a_student_inherits_once_whoever_prepares_it(options):
    def distiller() -> Distiller:
        return Distiller(
            student=tiny_fcos(width=4, norm="BN"),
            teacher=Teacher(tiny_fcos(seed=1, width=4, norm="BN"), None),
            methods=MethodSet(bckd=BCKD()),
            init_student=True,
        )

    model = distiller()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    Trainer(model, [images()] * 4, optimizer, **options).train(0, 2)
    assert model.kd.student_initialized
    other = distiller()
    other.load_state_dict(model.state_dict())
    other.prepare_training()
    assert_equal(dict(other.student.state_dict()), dict(model.student.state_dict()))


def test_one_batch_of_one_process_is_what_it_is_without():
    model = tiny_fcos(num_levels=5, width=4)
    assert trained(model, [images()], "iteration")[0] == trained(model, [images()], "batch")[0]


def test_counts_that_differ_between_the_passes_are_refused():
    normalizers = IterationNormalizers(2)
    for value in (1.0, 3.0):
        with normalizers.measuring():
            over_iteration(torch.tensor(value))
    with normalizers.using():
        assert over_iteration(torch.tensor(1.0)) == 2
    with pytest.raises(RuntimeError, match=r"0 counts were asked for, and \[1, 1\] measured"):
        with normalizers.using():
            pass
    assert over_iteration(torch.tensor(5)) == 5


@pytest.mark.parametrize("name", sorted({name for name, _ in VARIANTS}))
def test_a_run_says_which_methods_still_depend_on_the_batch(name, caplog):
    for variant in PAIRS[name]:
        model = build(name, variant)
        why = model.kd.feature.unlike_one_batch()
        with caplog.at_level(logging.WARNING, "dense_kd"), EventStorage():
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            Trainer(model, [], optimizer, normalize="iteration")
        assert (f"({name}) still depends on how images are divided" in caplog.text) == bool(why)
        caplog.clear()
    with pytest.raises(ValueError, match="normalize='images': expected one of"):
        Trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.0), normalize="images")
