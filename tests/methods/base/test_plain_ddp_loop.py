"""A plain loop over a distiller in two processes: names, iterations, copies, a broken teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from dense_kd import FRS, Distiller, GIBox, MethodSet, Teacher
from helpers.builders import batch, tiny_gfl
from helpers.torch_features import has_fused_adamw
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow


def worker(folder: str) -> None:
    rank = comm.get_rank()
    model = Distiller(
        student=tiny_gfl(seed=rank),
        teacher=Teacher(tiny_gfl(seed=9), None),
        methods=MethodSet(gibox=GIBox(), frs=FRS(warmup_iters=4)),
        init_student=True,
    )
    average = copy.deepcopy(model)
    parallel = DistributedDataParallel(model)
    optimizer = AdamW(parallel.parameters(), lr=1e-4, fused=has_fused_adamw())
    for _ in range(3):
        optimizer.zero_grad()
        with parallel.no_sync():
            sum(parallel(batch(seed=rank)).values()).backward()
        sum(parallel(batch(seed=rank + 2)).values()).backward()
        optimizer.step()
    found = {
        "names": [name for name, _ in parallel.named_parameters()],
        "state": parallel.state_dict(),
        "average is inherited": bool(average.kd.student_initialized),
    }
    with torch.no_grad():
        model.teacher.model.head.cls_score.bias.fill_(float("nan"))
    try:
        sum(parallel(batch(seed=rank)).values()).backward()
    except FloatingPointError as error:
        found["error"] = str(error)
    torch.save(found, Path(folder) / f"loop_usual_{rank}.pth")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return run_in_two_processes(worker, tmp_path_factory)


def test_both_processes_count_inherit_name_and_stop_alike(outputs):
    first, second = ranks_of(outputs, "loop", "usual")
    for found in (first, second):
        assert set(found["names"]) <= set(found["state"])
        assert "module.backbone.fpn_lateral3.weight" in found["names"]
        assert found["state"]["module.kd.iteration"] == 3
        assert found["state"]["module.kd.student_initialized"]
        assert found["average is inherited"]
        assert "the teacher's pass over a batch is not finite" in found["error"]
    for name in first["names"]:
        assert torch.equal(first["state"][name], second["state"][name]), name
