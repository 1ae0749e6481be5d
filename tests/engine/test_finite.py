"""Numbers that are not finite stop a run before they reach weights or files."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.engine import hooks
from detectron2.utils import comm
from torch.utils._python_dispatch import TorchDispatchMode

from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError
from dense_kd.engine import Trainer
from dense_kd.engine.finite import SMALLEST_SCALE
from helpers.toy import FAULTS, Toy, toy_batch, toy_trainer
from helpers.two_processes import launch_two

CLIPPING = {"max_norm": 10.0}


def saving(trainer: Trainer, folder, period: int = 100) -> Trainer:
    checkpointer = AtomicCheckpointer(trainer.model, str(folder), trainer=trainer)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, period)])
    return trainer


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("options", [{}, {"clip_grad": CLIPPING}, {"accumulate": 2}])
def test_a_step_that_is_not_finite_stops_before_the_weights_and_says_what_is_known(
    tmp_path, fault, options
):
    batches = [toy_batch(), toy_batch(), toy_batch(), toy_batch(fault, "culprit")]
    last = len(batches) // options.get("accumulate", 1) - 1
    run = saving(toy_trainer(batches, **options), tmp_path)
    fine = toy_trainer(batches, **options)
    fine.train(0, last)
    with pytest.raises(FloatingPointError) as error:
        run.train(0, last + 1)
    message = str(error.value)
    assert f"iteration {last}" in message
    assert "loss_box=" in message and "kd_map=" in message
    assert "culprit.jpg" in message
    if FAULTS[fault] == "gradients":
        assert "box" in message.split("gradients", 1)[1]
        assert "norm of the gradients=" in message
    only_distillation = fault.startswith("distillation")
    assert ("look at the teacher" in message) == only_distillation
    for ours, before in zip(run.model.parameters(), fine.model.parameters()):
        assert torch.equal(ours, before)
    assert list(tmp_path.iterdir()) == []


def test_parameters_with_finite_gradients_are_not_named():
    with pytest.raises(FloatingPointError) as error:
        toy_trainer([toy_batch("gradient of NaN")], clip_grad=CLIPPING).train(0, 1)
    message = str(error.value)
    assert "1 of 2 parameters" in message and "adapter" not in message


def test_finite_steps_are_as_those_of_torch_alone():
    run = toy_trainer([toy_batch()] * 3, clip_grad={"max_norm": 1.5, "norm_type": 1.0})
    run.train(0, 3)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum(model(toy_batch()).values()).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.5, 1.0)
        optimizer.step()
    for ours, theirs in zip(run.model.parameters(), model.parameters()):
        assert torch.equal(ours, theirs)
    assert run.storage.history("grad_norm").latest() == norm.item()


def test_before_torch_2_6_norm_and_clipping_are_the_same(monkeypatch):
    steps = {}
    for version in ("new", "old"):
        if version == "old":
            for name in ("get_total_norm", "clip_grads_with_norm_"):
                monkeypatch.delattr(torch.nn.utils, name, raising=False)
        run = toy_trainer([toy_batch()] * 3, clip_grad={"max_norm": 1.5})
        run.train(0, 3)
        steps[version] = [*run.model.parameters()]
    for new, old in zip(steps["new"], steps["old"]):
        torch.testing.assert_close(new, old)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors of float32, as those of a device are."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += args[0].dtype == torch.float32
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"clip_grad": CLIPPING}, {"accumulate": 3}])
def test_a_step_waits_for_the_device_once(monkeypatch, options):
    run = toy_trainer([toy_batch()] * 6, **options)
    lists = []
    to_list = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: (lists.append(x.shape), to_list(x))[1])
    with Reads() as reads:
        run.train(0, 2)
    assert reads.count == 0
    assert lists == [(2 + 1 + 1,)] * 2  # two losses, the norm and whether all are finite


def test_parameters_that_are_not_finite_already_are_named():
    run = toy_trainer([toy_batch()], lr=0.1)
    run.model.adapter.data[1] = float("inf")
    with pytest.raises(FloatingPointError, match="already, 1 of 2 parameters:\n    adapter"):
        run.train(0, 1)


needs_cpu_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="torch 2.3 scales gradients on the CPU"
)


@needs_cpu_scaler
def test_a_gradient_scaler_leaves_out_single_steps():
    run = toy_trainer([toy_batch(), toy_batch("gradient of NaN"), toy_batch()])
    run.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run.train(0, 3)
    two = toy_trainer([toy_batch()] * 2)
    two.train(0, 2)
    for ours, theirs in zip(run.model.parameters(), two.model.parameters()):
        torch.testing.assert_close(ours, theirs)
    assert run.grad_scaler.get_scale() == 512.0


@needs_cpu_scaler
def test_gradients_that_no_scale_helps_stop_a_run_with_a_gradient_scaler():
    run = toy_trainer([toy_batch("gradient of NaN", "culprit")] * 100)
    run.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = copy.deepcopy(run.model.state_dict())
    with pytest.raises(FloatingPointError, match="(?s)culprit.*scale of the gradients has come"):
        run.train(0, 100)
    assert run.iter < 40 and 0 < run.grad_scaler.get_scale() < SMALLEST_SCALE
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("tensor", ["box", "adapter", "statistics"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_and_statistics_that_are_not_finite_are_never_saved(tmp_path, tensor, value):
    run = saving(toy_trainer([toy_batch()] * 4), tmp_path, period=1)
    run.train(0, 1)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    again = toy_trainer([toy_batch()] * 4)
    spoil = hooks.CallbackHook(after_step=lambda t: t.model.state_dict()[tensor].fill_(value))
    again.register_hooks([spoil])
    saving(again, tmp_path, period=1)
    with pytest.raises(FloatingPointError, match=rf"not finite.*\n    model\.{tensor}"):
        again.train(1, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_step_that_overflows_the_weights_is_not_saved_as_the_last_one(tmp_path):
    run = saving(toy_trainer([toy_batch()], lr=3e38), tmp_path)
    with pytest.raises(FloatingPointError, match="model_final.pth is not written"):
        run.train(0, 1)
    assert list(tmp_path.iterdir()) == []


def adam(model: torch.nn.Module, folder) -> AtomicCheckpointer:
    """Of a run of ``model``, which is its ``trainer``."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return AtomicCheckpointer(
        model, str(folder), trainer=Trainer(model, [toy_batch()] * 4, optimizer)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "place",
    ["optimizer.state.1.exp_avg", "optimizer.state.0.exp_avg_sq", "training_buffers.average"],
)
def test_a_run_does_not_go_on_with_a_trainer_that_is_not_finite(
    tmp_path, monkeypatch, place, value
):
    monkeypatch.setattr(Toy, "training_buffers", ("average",), raising=False)
    models = [Toy(), Toy(), Toy()]
    for model in models:
        model.register_buffer("average", torch.ones(1), persistent=False)
    run, again, new = (adam(model, tmp_path) for model in models)
    run.checkpointables["trainer"].train(0, 2)
    run.save("model", iteration=1)
    file = tmp_path / "model.pth"
    content = torch.load(file, weights_only=False)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    part = content["trainer"]
    for key in path:
        part = part[key]
    part[last].view(-1)[-1] = value
    torch.save(content, file)
    with pytest.raises(
        CheckpointError, match=rf"model\.pth cannot .* not finite.*\n    trainer\.{place}\n"
    ):
        again.resume_or_load("", resume=True)
    new.resume_or_load(str(file), resume=False)  # the weights are fine


def two_processes(folder: str) -> None:
    """Each fault in one process: both stop in that step, and say which process it was."""
    for fault in FAULTS:
        for culprit in range(2):
            fine, bad = toy_batch(), toy_batch(fault, f"culprit_of_{culprit}")
            model = torch.nn.parallel.DistributedDataParallel(Toy())
            batches = [fine, bad if comm.get_rank() == culprit else fine, fine]
            run = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
            try:
                run.train(0, 3)
            except FloatingPointError as error:
                message = str(error)
            assert run.iter == 1, (fault, culprit)
            assert f"culprit_of_{culprit}.jpg" in message.split(f"process {culprit}: ")[1]
            if FAULTS[fault] == "losses":
                of_the_other = message.split(f"process {1 - culprit}: ")[1].split("\n")[0]
                assert "loss_box=" not in of_the_other and "kd_map=" not in of_the_other
    with open(f"{folder}/{comm.get_rank()}", "w") as file:
        file.write("all stopped")


def test_two_processes_stop_together_and_say_whose_numbers_they_are(tmp_path):
    launch_two(two_processes, tmp_path)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["all stopped"] * 2
