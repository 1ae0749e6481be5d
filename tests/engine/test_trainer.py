"""One step of the trainer, and the state that a run is resumed from."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError
from dense_kd.data import TrainLoader
from dense_kd.engine import Trainer
from dense_kd.teacher_cache import TeacherCache
from helpers.builders import batch, tiny_fcos, tiny_retinanet
from helpers.script_runs import assert_equal
from helpers.toy import Toy, toy_batch, toy_trainer


def distiller(make=tiny_retinanet) -> Distiller:
    return Distiller(
        student=make(), teacher=Teacher(make(seed=1), None), methods=MethodSet(bckd=BCKD())
    )


def trainer(model, batches, lr=1e-3, **options) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, batches, optimizer, **options)


def steps(run: Trainer, start: int, end: int) -> None:
    run.train(start, end)


def test_accumulating_two_batches_equals_the_mean_of_their_gradients():
    batches = [batch(seed=0), batch(seed=1)]
    model = distiller()
    reference = copy.deepcopy(model)
    expected = torch.zeros(())
    for inputs in batches:
        expected = expected + sum(reference(inputs).values()) / 2
    gradients = torch.autograd.grad(expected, [p for p in reference.parameters()])
    run = trainer(model, batches, lr=0.5, accumulate=2)
    before = [p.detach().clone() for p in model.parameters()]
    steps(run, 0, 1)
    for old, new, gradient in zip(before, model.parameters(), gradients):
        torch.testing.assert_close(new, old - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_that_is_written_is_the_mean_over_accumulated_batches():
    model = distiller()
    reference = copy.deepcopy(model)
    values = [reference(batch(seed=s))["kd_bckd_loss_cls"].item() for s in (0, 1)]
    run = trainer(model, [batch(seed=0), batch(seed=1)], accumulate=2)
    steps(run, 0, 1)
    written = run.storage.history("kd_bckd_loss_cls").latest()
    assert written == pytest.approx(sum(values) / 2, rel=1e-5)


def test_a_long_run_keeps_the_latest_numbers_of_each_scalar_alone(monkeypatch):
    monkeypatch.setattr("dense_kd.engine.trainer.KEPT_SCALARS", 2)
    run = trainer(distiller(), [batch(seed=s) for s in range(4)])
    totals = []
    run.after_step = lambda: totals.append(run.storage.latest()["total_loss"][0])
    steps(run, 0, 4)
    histories = run.storage.histories()
    assert len(histories) > 5 and {len(each.values()) for each in histories.values()} == {2}
    kept = histories["total_loss"]
    assert kept.values() == [(totals[2], 2), (totals[3], 3)]
    assert kept.global_avg() == pytest.approx(sum(totals) / 4)


def test_clipping_bounds_the_step_and_no_clipping_does_not():
    def step_length(**options) -> float:
        model = distiller()
        before = [p.detach().clone() for p in model.parameters()]
        steps(trainer(model, [batch()], lr=1.0, **options), 0, 1)
        return sum((p - b).square().sum() for p, b in zip(model.parameters(), before)).sqrt().item()

    free = step_length()
    assert free > 0.5
    assert step_length(clip_grad={"max_norm": 0.1}) == pytest.approx(0.1, rel=1e-3)
    assert step_length(clip_grad={"max_norm": 1e6}) == pytest.approx(free, rel=1e-5)


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    batches = [batch(seed=s) for s in range(6)]
    whole = trainer(distiller(), batches)
    steps(whole, 0, 6)

    first = trainer(distiller(), batches[:3])
    steps(first, 0, 3)
    first.iter = 2  # what a checkpoint written in the third iteration holds
    AtomicCheckpointer(first.model, str(tmp_path), trainer=first).save("model_0000002")

    second = trainer(distiller(), batches[3:])
    AtomicCheckpointer(second.model, str(tmp_path), trainer=second).resume_or_load("", resume=True)
    assert second.iter == 2
    assert second.model.loss_normalizer == first.model.loss_normalizer != 100
    steps(second, 3, 6)
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values()):
        assert torch.equal(a, b)
    assert torch.equal(whole.model.loss_normalizer, second.model.loss_normalizer)


class Numbers:
    """A loader with a place of its own, which an iterator asks for when it is made."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        torch.rand(())  # as torch's loaders do
        return map(self.batch, itertools.count(self.place + 1))

    def batch(self, number: int) -> list[dict]:
        self.place = number
        return toy_batch(name=str(number))

    def state_dict(self) -> dict:
        return {"place": self.place}

    def load_state_dict(self, state: dict) -> None:
        self.place = state["place"]


def test_a_loader_with_a_state_of_its_own_goes_on_where_it_was_in_a_run_that_begins_or_has_begun():
    def training() -> tuple[Trainer, list]:
        run, seen = toy_trainer(Numbers()), []
        run.model.register_forward_pre_hook(
            lambda _, given: seen.append((given[0][0]["file_name"], torch.rand(()).item()))
        )
        return run, seen

    torch.manual_seed(0)
    whole, expected = training()
    steps(whole, 0, 3)
    state = copy.deepcopy(whole.state_dict())
    steps(whole, 3, 6)
    assert [name for name, _ in expected] == [f"{number}.jpg" for number in range(1, 7)]
    second, seen = training()
    for _ in range(2):
        second.load_state_dict(state)
        steps(second, 3, 6)
    assert seen == expected[3:] * 2


class Halves(HookBase):
    """Keeps the gradients that it finds, and halves them."""

    def __init__(self):
        self.found: list[torch.Tensor] = []

    def after_backward(self):
        gradient = self.trainer.model.box.grad
        self.found.append(gradient.clone())
        gradient.div_(2)


def test_hooks_see_and_change_the_gradients_of_all_batches_of_an_iteration():
    run, hook = toy_trainer([toy_batch() for _ in range(4)], accumulate=2), Halves()
    run.register_hooks([HookBase(), hook])
    steps(run, 0, 2)
    assert len(hook.found) == 2
    for gradient in hook.found:
        torch.testing.assert_close(gradient, torch.ones(3))
    torch.testing.assert_close(run.model.box.detach(), torch.full((3,), 1 - 2 * 0.1 / 2))


def test_what_hooks_do_to_gradients_comes_before_they_are_clipped():
    run = toy_trainer([toy_batch()], clip_grad={"max_norm": 100.0})
    run.register_hooks([Halves()])
    steps(run, 0, 1)
    norm = (3 * 0.5**2 + 2 * 2.0**2) ** 0.5  # of the box, halved, and of the adapter
    assert run.storage.latest()["grad_norm"][0] == pytest.approx(norm)


def test_bfloat16_autocast_trains_with_losses_close_to_full_precision():
    losses = {}
    for dtype in (None, "bfloat16"):
        run = trainer(distiller(tiny_fcos), [batch()] * 2, amp_dtype=dtype)
        steps(run, 0, 2)
        losses[dtype] = {
            name: history.values()
            for name, history in run.storage.histories().items()
            if "loss" in name or name.startswith("kd")
        }
    for name, values in losses[None].items():
        for (full, _), (mixed, _) in zip(values, losses["bfloat16"][name]):
            assert mixed == pytest.approx(full, rel=0.02), name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"accumulate": 0}, "accumulate=0"),
        ({"amp_dtype": "int8"}, "amp_dtype='int8'"),
        ({"amp_dtype": "float16"}, "needs a GPU"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(distiller(), [], **options)


def test_a_loss_that_is_not_finite_stops_the_run():
    model = distiller()
    with torch.no_grad():
        model.student.head.cls_score.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        steps(trainer(model, [batch()]), 0, 1)


def test_detectron2s_own_trainer_trains_a_distiller():
    from detectron2.engine import SimpleTrainer

    model = distiller()
    run = SimpleTrainer(model, [batch()] * 2, torch.optim.SGD(model.parameters(), lr=1e-3))
    before = model.student.head.cls_score.weight.clone()
    with EventStorage():
        run.train(0, 2)
    assert not torch.equal(before, model.student.head.cls_score.weight)


def test_normalisers_of_a_checkpoint_of_version_0_1_are_found(caplog):
    first = trainer(distiller(), [batch()])
    steps(first, 0, 1)
    state = first.state_dict()
    state["training_buffers"] = {f"student.{k}": v for k, v in state["training_buffers"].items()}
    second = trainer(distiller(), [batch()])
    second.load_state_dict(state)
    assert second.model.loss_normalizer == first.model.loss_normalizer != 100
    assert "training buffers" not in caplog.text
    state["training_buffers"] = {"another": torch.ones(())}
    second.load_state_dict(state)
    assert "training buffers ['another']" in caplog.text


@pytest.mark.parametrize("done, planned", [(4, 3), (1, 0)])
def test_fewer_iterations_than_are_done_are_an_error(done, planned):
    with pytest.raises(ValueError, match=f"{done} iterations are done .* max_iter={planned}"):
        steps(trainer(distiller(), []), done, planned)


def test_a_model_without_buffers_is_trained():
    model = Toy()
    del model.statistics
    Trainer(model, [toy_batch()] * 3, torch.optim.SGD(model.parameters(), lr=0.1)).train(0, 3)
    assert not torch.equal(model.box, torch.ones(3))


class Draws(HookBase):
    """An evaluation, say, every other iteration; keeps the state that a checkpoint would have."""

    def __init__(self):
        self.states: list[dict] = []

    def before_train(self):
        self.draw()

    def after_step(self):
        if self.trainer.iter % 2:
            self.draw()
        self.states.append(copy.deepcopy(self.trainer.state_dict()["random"]))

    @staticmethod
    def draw():
        random.random(), np.random.rand(), torch.rand(())


def test_hooks_draw_no_numbers_of_the_training_and_none_go_into_its_checkpoint():
    def run(*hooks) -> tuple[list, list]:
        seen = []
        model = Toy()
        model.register_forward_pre_hook(
            lambda *_: seen.append([random.random(), np.random.rand(), torch.rand(()).item()])
        )
        training = Trainer(model, [toy_batch()] * 4, torch.optim.SGD(model.parameters(), lr=0.1))
        recorder = Draws()
        training.register_hooks([*hooks, recorder])
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(3)
        if not hooks:
            recorder.draw = lambda: None
        training.train(0, 4)
        return seen, recorder.states

    (alone, states), (beside, others) = run(), run(Draws())
    assert alone == beside and len(alone) == 4
    assert_equal(states, others)


@pytest.mark.parametrize(
    "loader, missing, said",
    [
        ([], None, "list, the loader of dataloader.train, does not tell its place"),
        (None, "data_loader", "the checkpoint does not have the place in the data"),
        (None, "random", "the checkpoint does not have the random generators"),
        (None, "other_processes", "had 3 processes and has 1 now"),
        (None, None, ""),
    ],
)
def test_what_keeps_a_resumed_run_from_being_exact_is_said_in_one_line(
    loader, missing, said, caplog
):
    def training() -> Trainer:
        model = Toy()
        data = [{"width": 9, "height": 9}]
        batches = TrainLoader(data, mapper=dict, total_batch_size=1, seed=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Trainer(model, batches if loader is None else loader, optimizer)

    state = training().state_dict()
    state.pop(missing or "none", None)
    if missing == "other_processes":
        state["num_processes"] = 3
    training().load_state_dict(state)
    lines = [r.getMessage() for r in caplog.records if "bit for bit" in r.getMessage()]
    assert len(lines) == bool(said) and said in "".join(lines)


def test_what_a_teacher_and_the_compiler_keep_to_themselves_is_said_when_a_run_goes_on(caplog):
    model = distiller()
    state = trainer(model, [], compile_losses=True).state_dict()
    model.teacher.compile = True
    model.teacher.cache = TeacherCache("memory", max_bytes=1e6)
    trainer(model, [], compile_losses=True).load_state_dict(state)
    for said in ("the teacher's cache", "the teacher is compiled", "train.compile_losses"):
        assert said in caplog.text


def test_the_state_of_another_optimizer_is_refused():
    model = distiller()
    state = Trainer(model, [], torch.optim.AdamW(model.parameters())).state_dict()
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        run = Trainer(model, [], optimizer(model.parameters(), lr=0.1))
        with pytest.raises(CheckpointError, match=f"AdamW.*this run has {optimizer.__name__}"):
            run.load_state_dict(state)
    del state["optimizer_class"]  # of version 0.1
    run = Trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(CheckpointError, match="betas"):
        run.load_state_dict(state)
    fewer = torch.optim.AdamW(model.student.head.parameters())
    with pytest.raises(CheckpointError, match="another choice of what is trained"):
        Trainer(model, [], fewer).load_state_dict(state)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda kept: kept.update(exp_avg=torch.ones(2)),
            r"exp_avg of shape \(2,\) for",
        ),
        (lambda kept: kept.update(exp_avg_sq=0.5), "exp_avg_sq that is no tensor for parameter 1"),
        (lambda kept: kept.update(exp_avg_sq=None), "exp_avg_sq that is no tensor for parameter 1"),
        (lambda kept: kept.pop("exp_avg"), "exp_avg that is no tensor for parameter 1"),
        (lambda kept: kept.update(step=torch.ones(2)), r"step of shape \(2,\) for parameter 1"),
        (lambda kept: kept.update(step="12"), "step of '12' for parameter 1"),
        (lambda kept: kept.update(step=1.0), "as numbers and of others as tensors"),
    ],
)
def test_moments_of_other_shapes_are_refused_before_the_first_step(spoil, said):
    model = distiller()
    run = Trainer(model, [batch()], torch.optim.AdamW(model.parameters()))
    steps(run, 0, 1)
    state = copy.deepcopy(run.state_dict())
    run.load_state_dict(state)
    spoil(state["optimizer"]["state"][1])
    with pytest.raises(CheckpointError, match=said):
        run.load_state_dict(state)
