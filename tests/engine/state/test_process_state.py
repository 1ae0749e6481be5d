"""Of several processes each goes on with its own generators and buffers, from one checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn

from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.engine import Trainer
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow

BATCHES = [[{"number": float(i)}] for i in range(6)]


class Drawing(nn.Module):
    """Its losses depend on what it draws, and on a buffer in no state dict that it adds up."""

    training_buffers = ("total",)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("total", torch.zeros(1), persistent=False)
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, batch: list[dict]) -> dict[str, Tensor]:
        self.total += batch[0]["number"] * (1 + comm.get_rank()) + torch.rand(1)
        self.norm(self.total + torch.rand(2, 1))
        return {"loss": (self.weight * self.total).sum()}


def training(folder: Path, batches: list, seed: int) -> tuple[Trainer, AtomicCheckpointer]:
    torch.manual_seed(seed + comm.get_rank())
    model = create_ddp_model(Drawing(), device_ids=None, broadcast_buffers=False)
    run = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.01))
    checkpointer = AtomicCheckpointer(model, str(folder), trainer=run)
    if comm.is_main_process():  # as in detectron2's script
        run.register_hooks([PeriodicCheckpointer(checkpointer, 3)])
    return run, checkpointer


def left_by(run: Trainer) -> dict:
    module = run.model.module
    return {"model": module.state_dict(), "total": module.total, "random": torch.rand(4)}


def worker(output: str) -> None:
    folder, rank = Path(output, "run"), comm.get_rank()
    folder.mkdir(exist_ok=True)
    whole, _ = training(folder, BATCHES, seed=0)
    whole.train(0, 6)
    torch.save(left_by(whole), Path(output, f"whole_run_{rank}.pth"))
    comm.synchronize()
    again, checkpointer = training(folder, BATCHES[3:], seed=5)
    checkpointer.load(str(folder / "model_0000002.pth"))
    again.train(3, 6)
    torch.save(left_by(again), Path(output, f"resumed_run_{rank}.pth"))
    done, checkpointer = training(folder, [], seed=6)
    checkpointer.load(str(folder / "model_0000005.pth"))
    if comm.is_main_process():
        (folder / "model_final.pth").unlink()
        (folder / "last_checkpoint").write_text("model_0000005.pth")
    comm.synchronize()
    done.train(6, 6)  # all is done, but what a kill in the last save left out


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return run_in_two_processes(worker, tmp_path_factory)


def test_both_end_as_if_they_had_not_been_stopped(outputs):
    whole, resumed = (ranks_of(outputs, name, "run") for name in ("whole", "resumed"))
    for expected, found in zip(whole, resumed):
        assert torch.equal(found["total"], expected["total"])
        assert torch.equal(found["random"], expected["random"])
        for key, value in expected["model"].items():
            assert torch.equal(found["model"][key], value), key
    for key in ("total", "random"):
        assert not torch.equal(whole[0][key], whole[1][key])


@pytest.mark.parametrize("name", ["model_0000002", "model_final"])
def test_the_checkpoint_has_of_the_second_what_the_first_does_not_have(outputs, name):
    state = torch.load(outputs / "run" / f"{name}.pth", weights_only=True)["trainer"]
    assert state["num_processes"] == 2
    (second,) = state["other_processes"]
    assert second["buffers"].keys() == {"total", "norm.running_mean", "norm.running_var"}
    assert not torch.equal(second["random"]["torch"], state["random"]["torch"])
