"""A run on a GPU: its steps, what it saves, and how it goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image
from torch import nn

from dense_kd import BCKD, FGD, MGD, Distiller, MethodSet, Teacher
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from dense_kd.checkpoint import AtomicCheckpointer, load_strictly
from dense_kd.engine import Trainer
from dense_kd.visualize import compare
from helpers.builders import batch, tiny_atss, tiny_fcos, tiny_retinanet
from helpers.toy import Toy, toy_batch


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def distiller(**methods) -> Distiller:
    """Of RetinaNet, on the GPU; the methods have seeded parameters."""
    torch.manual_seed(0)
    model = Distiller(
        student=tiny_retinanet(),
        teacher=Teacher(tiny_retinanet(seed=1), None),
        methods=MethodSet(**(methods or {"bckd": BCKD()})),
    )
    return model.to("cuda")


def trainer(model: nn.Module, batches: list, **options) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return Trainer(model, batches, optimizer, **options)


STEPS = {
    "float32": (Toy, toy_batch()),
    "bfloat16": (distiller, batch("one empty")),
    "float16": (Toy, toy_batch()),  # a toy: the CPU, which computes it, is slow in float16
}


@pytest.mark.parametrize("dtype", STEPS)
def test_a_trainer_makes_steps_there(gpu, dtype):
    build, inputs = STEPS[dtype]
    if dtype == "float16" and not hasattr(torch.amp, "GradScaler"):
        pytest.skip("the CPU cannot scale gradients before torch 2.3")
    model = build().to("cuda")
    before = copy.deepcopy(list(model.parameters()))
    options = {"clip_grad": {"max_norm": 1.0}, "accumulate": 2}
    run = trainer(model, [inputs] * 2, amp_dtype=None if dtype == "float32" else dtype, **options)
    run.train(0, 1)
    for old, new in zip(before, model.parameters()):
        assert isinstance(new, Pretended)
        assert new.grad is None or not new.grad.any() or not torch.equal(old, new)
    assert run.storage.latest()["total_loss"][0] > 0
    assert run.storage.latest()["grad_norm"][0] > 0


def test_a_step_that_is_not_finite_is_described_there(gpu):
    model = distiller()
    with torch.no_grad():
        model.student.head.cls_score.bias.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="image_0.jpg"):
        trainer(model, [batch()]).train(0, 1)


def test_a_run_that_is_resumed_there_goes_on_as_if_it_had_not_stopped(gpu, tmp_path):
    def new(batches: list) -> Trainer:
        return trainer(distiller(mgd=MGD(warmup_iters=3)), batches)

    batches = [batch(seed=0), batch(seed=1)]
    whole = new(batches)
    whole.train(0, 2)
    first = new(batches[:1])
    first.train(0, 1)
    first.iter = 0  # what a checkpoint written in the first iteration holds
    AtomicCheckpointer(first.model, str(tmp_path), trainer=first).save("model_0000000")
    torch.rand(3, device="cuda")  # masks are drawn there, so its generator is part of the state
    second = new(batches[1:])
    AtomicCheckpointer(second.model, str(tmp_path), trainer=second).resume_or_load("", resume=True)
    assert all(isinstance(x, Pretended) for x in second.model.state_dict().values() if x.dim())
    second.train(1, 2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_what_is_saved_there_is_read_on_both_devices(tmp_path):
    with pretended_gpu():
        model = distiller(fgd=FGD())
        AtomicCheckpointer(model, str(tmp_path)).save("model_final")
        path = str(tmp_path / "model_final.pth")
        there = tiny_retinanet(seed=2).to("cuda")
        load_strictly(there, path)
        teacher = Teacher(tiny_retinanet(seed=2).to("cuda"), path)
        teacher.load()
        for found in (there, teacher.model):
            expected = model.student.state_dict()
            assert all(torch.equal(v, expected[k]) for k, v in found.state_dict().items())
        expected = {key: value.cpu() for key, value in expected.items()}
    here = tiny_retinanet(seed=2)
    load_strictly(here, path)
    assert all(torch.equal(value, expected[key]) for key, value in here.state_dict().items())


def test_a_loop_of_ones_own_warms_up_there(gpu):
    model = distiller(bckd=BCKD(warmup_iters=2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    found = []
    for _ in range(2):
        losses = model(batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        found.append(losses["kd_bckd_loss_cls"].item())
    assert found[1] == pytest.approx(2 * found[0], rel=0.2)
    assert model.state_dict()["kd.iteration"] == 2


def test_detectors_that_are_there_are_shown_in_pictures(gpu, tmp_path):
    Image.new("RGB", (64, 64), (10, 20, 30)).save(tmp_path / "a.png")
    box = {"bbox": [4, 4, 12, 12], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    image = {"file_name": str(tmp_path / "a.png"), "height": 64, "width": 64, "annotations": [box]}
    shown = {"FCOS": tiny_fcos().to("cuda"), "ATSS": tiny_atss().to("cuda")}
    (row,) = compare([image], shown, list("abcd"), score_threshold=0.1)
    assert [panel.title for panel in row.panels] == ["truth", "FCOS", "ATSS"]
    assert all(panel.caption.startswith("0 of 1 found") for panel in row.panels[1:])
