"""Weights by gradient share are the same in all processes, by the norms of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm

from dense_kd import PKD, Distiller, MethodSet, Teacher
from dense_kd.engine import Trainer
from dense_kd.methods import balance as module
from helpers.builders import batch, tiny_fcos
from helpers.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow

OPTIONS = {"probe": 2, "period": 3, "tolerance": 0.0, "smoothing": 0.5}


def worker(folder: str) -> None:
    """Each process has another image, and the second one none with objects at first."""
    rank, local = comm.get_rank(), []
    norm = module._norm

    def kept(losses, maps):
        found = norm(losses, maps)
        local.append(found.item())
        return found

    module._norm = kept
    methods = MethodSet(pkd=PKD(), balance=OPTIONS)
    teacher = Teacher(tiny_fcos(seed=1), None)
    model = create_ddp_model(
        Distiller(student=tiny_fcos(), teacher=teacher, methods=methods),
        device_ids=None, find_unused_parameters=False, broadcast_buffers=False,
    )  # fmt: skip
    cases = ("all empty", "usual", "usual", "usual")
    batches = [batch(case if rank else "usual", seed=9 * rank + s)[:1]
               for s, case in enumerate(cases)]  # fmt: skip
    run = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=1e-3))
    run.train(0, 1)
    first = {"norms": model.module.kd.balance.norms_pkd.clone(), "local": local[:2]}
    run = Trainer(model, batches[1:], torch.optim.SGD(model.parameters(), lr=1e-3))
    run.train(1, 4)
    state = {k: v for k, v in model.module.state_dict().items() if "balance" in k}
    shares = run.storage.history("diag/balance_share_pkd").values()
    torch.save({**first, "state": state, "shares": shares}, Path(folder, f"{rank}.pth"))


def test_both_have_the_factors_that_the_norms_of_both_give(tmp_path_factory):
    folder = run_in_two_processes(worker, tmp_path_factory)
    first, second = (torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert first["local"] != second["local"]
    # That of detection is asked for first.
    detection, own = (a + b for a, b in zip(first["local"], second["local"]))
    assert first["norms"].tolist() == pytest.approx([own, detection, 1])
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key
    assert first["state"]["kd.balance.factor_pkd"] != 1
    assert first["shares"] == second["shares"] and [i for _, i in first["shares"]] == [1, 3]
