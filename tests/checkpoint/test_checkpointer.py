"""Checkpoints that are whole or absent."""

from __future__ import annotations

import logging
import os
import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from dense_kd import MGD, PGD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError, load_strictly
from dense_kd.checkpoint.layouts.wrappers import is_run_state
from helpers.builders import batch, tiny_ddod, tiny_fcos


def checkpointer(folder, model=None) -> AtomicCheckpointer:
    return AtomicCheckpointer(model or nn.Linear(2, 2), str(folder))


def test_a_checkpoint_is_read_back(tmp_path):
    model = nn.Linear(2, 2)
    checkpointer(tmp_path, model).save("model_0000001", iteration=1)
    other = nn.Linear(2, 2)
    extra = checkpointer(tmp_path, other).resume_or_load("", resume=True)
    assert torch.equal(other.weight, model.weight)
    assert extra["iteration"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def test_a_run_killed_between_its_first_checkpoint_and_what_names_it_goes_on_from_that(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    checkpointer(tmp_path, model).save("model_0000001", iteration=1)
    (tmp_path / "last_checkpoint").unlink()
    again = checkpointer(tmp_path, other)
    assert again.has_checkpoint()
    assert again.resume_or_load("", resume=True)["iteration"] == 1
    assert torch.equal(other.weight, model.weight)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "model_0000003.pth").write_bytes(b"another")
    assert not again.has_checkpoint()  # which of them counts is not known


def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    first = checkpointer(tmp_path)
    first.save("model")
    whole = (tmp_path / "model.pth").read_bytes()

    def fail(content, file):
        file.write(b"half a check")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    for name in ("model", "model_0000009"):
        with pytest.raises(OSError, match="disk full"):
            first.save(name)
    assert (tmp_path / "model.pth").read_bytes() == whole
    assert (tmp_path / "last_checkpoint").read_text() == "model.pth"
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model.pth"]


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_checkpoint_that_cannot_be_loaded_is_named(tmp_path, damage):
    saved = checkpointer(tmp_path)
    saved.save("model")
    path = tmp_path / "model.pth"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match="model.pth could not be loaded"):
        saved.load(str(path))


def named_by(state: dict[str, torch.Tensor], layout: str) -> dict[str, np.ndarray]:
    """The backbone in ``state`` with the names of files of ImageNet weights."""
    arrays = {}
    for key, value in state.items():
        if not key.startswith("backbone.bottom_up."):
            continue
        name = key[len("backbone.bottom_up.") :]
        if layout == "Caffe2":
            if "running" in name:  # part of factor and bias there
                continue
            name = re.sub(r"^stem\.conv1\.norm\.", "res.conv1.bn.", name)
            name = re.sub(r"^stem\.", "", name)
            name = re.sub(r"conv([12])\.(norm\.)?(?=\w+$)", _branch, name)
            name = re.sub(r"shortcut\.(norm\.)?", _shortcut, name)
            name = name.replace("bn.weight", "bn.s").replace("bn.bias", "bn.b")
            name = re.sub(r"weight$", "w", name).replace(".", "_")
        arrays[name] = value.numpy()
    return arrays


def _branch(match: re.Match) -> str:
    if match.string.startswith(("res.", "conv1")):
        return match[0]
    return f"branch2{'ab'[int(match[1]) - 1]}." + ("bn." if match[2] else "")


def _shortcut(match: re.Match) -> str:
    return "branch1." + ("bn." if match[1] else "")


@pytest.mark.parametrize("layout", ["detectron2", "Caffe2", "pycls"])
def test_a_backbone_starts_from_files_whose_names_are_only_similar(tmp_path, layout):
    """``detectron2://ImageNetPretrained/...``, of which detectron2 matches the ends of names."""
    trained = tiny_fcos(seed=3).state_dict()
    arrays = named_by(trained, layout)
    content = {
        "detectron2": {"model": arrays, "__author__": "torchvision", "matching_heuristics": True},
        "Caffe2": {**arrays, "fc1000_w": np.zeros((5, 5)), "conv1_w_momentum": np.zeros(1)},
        "pycls": {"model_state": {k: torch.from_numpy(v) for k, v in arrays.items()}, "epoch": 3},
    }[layout]
    path = tmp_path / {"detectron2": "R.pkl", "Caffe2": "R-50.pkl", "pycls": "R.pyth"}[layout]
    if layout == "pycls":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, 2))
    model = tiny_fcos(seed=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    AtomicCheckpointer(model).resume_or_load(str(path), resume=False)
    for key, value in model.state_dict().items():
        of_backbone = key.startswith("backbone.bottom_up.")
        if "running" not in key:
            assert torch.equal(value, (trained if of_backbone else before)[key]), key


def test_a_file_of_another_place_can_be_resumed_with_its_trainers_state(tmp_path):
    """The rest of a checkpoint goes to what the checkpointer was given, as in detectron2."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpointer = AtomicCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model", iteration=3, notes={"seed": np.int64(3).item()})
    other = nn.Linear(2, 2)
    others = torch.optim.AdamW(other.parameters())
    resumed = AtomicCheckpointer(other, str(tmp_path), optimizer=others)
    assert resumed.resume_or_load("", resume=True) == {"iteration": 3, "notes": {"seed": 3}}
    state, expected = others.state_dict()["state"], optimizer.state_dict()["state"]
    assert all(torch.equal(state[i][k], expected[i][k]) for i in expected for k in expected[i])


def test_after_a_file_that_was_refused_another_one_is_loaded(tmp_path):
    model = nn.Linear(2, 2)
    checkpointer(tmp_path, model).save("model")
    torch.save({"model": {"foo": torch.zeros(3)}}, tmp_path / "foreign.pth")
    other = checkpointer(tmp_path, nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="foreign.pth: 0 of its 1 tensors"):
        other.load(str(tmp_path / "foreign.pth"))
    other.load(str(tmp_path / "model.pth"))
    assert torch.equal(other.model.weight, model.weight)


@pytest.mark.parametrize("content", [b"mod\xe5l_final.pth", b"\0\0", b""])
def test_what_points_to_the_last_checkpoint_is_named_if_it_is_damaged(tmp_path, content):
    (tmp_path / "last_checkpoint").write_bytes(content)
    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path))
    with pytest.raises(CheckpointError, match=f"{tmp_path}/last_checkpoint is (damaged|empty)"):
        checkpointer.resume_or_load("", resume=True)


def test_what_a_checkpointable_refuses_is_said_with_the_file(tmp_path):
    class Refuses:
        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            raise CheckpointError("it is of another run")

    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path), other=Refuses())
    checkpointer.save("model")
    with pytest.raises(CheckpointError, match=f"^{tmp_path}/model.pth: it is of another run"):
        checkpointer.resume_or_load("", resume=True)


def distiller_of_a_run(seed: int) -> Distiller:
    """Whose checkpoints hold all state of a run that there is."""
    torch.manual_seed(0)
    return Distiller(
        student=tiny_fcos(width=4),
        teacher=Teacher(tiny_fcos(seed=seed, width=4), None),
        methods=MethodSet(balance={"probe": 9}, mgd=MGD(warmup_iters=9), iteration=MGD()),
        init_student=True,
    )


def test_a_run_that_starts_from_the_file_of_another_has_its_weights_and_not_its_state(
    tmp_path, caplog
):
    first = distiller_of_a_run(seed=1)
    for iteration in range(2):
        with EventStorage(iteration):
            first(batch())
    AtomicCheckpointer(first, str(tmp_path)).save("model")
    saved, parameters = first.state_dict(), dict(first.named_parameters())
    of_run = [k for k in saved if k.startswith("kd.") and k not in parameters]
    assert of_run and [key for key in saved if is_run_state(key)] == of_run

    second, fresh = distiller_of_a_run(seed=2), distiller_of_a_run(seed=2)
    start = str(tmp_path / "model.pth")
    with caplog.at_level(logging.INFO, "dense_kd"):
        AtomicCheckpointer(second).resume_or_load(start, resume=False)
    state, expected = second.state_dict(), fresh.state_dict()
    for key, value in state.items():
        assert torch.equal(value, (expected if key in of_run else saved)[key]), key
    assert f"not the state of the run that wrote it: {of_run[0]}" in caplog.text
    second.prepare_training()  # now of the new teacher
    theirs = second.teacher.model.state_dict()["head.cls_score.bias"]
    assert torch.equal(second.student.head.cls_score.bias, theirs)

    resumed = distiller_of_a_run(seed=1)
    AtomicCheckpointer(resumed, str(tmp_path)).resume_or_load("", resume=True)
    assert all(torch.equal(value, saved[key]) for key, value in resumed.state_dict().items())


def test_a_training_that_starts_from_a_detectors_file_counts_its_own_positives(tmp_path):
    first, counts = tiny_ddod(seed=1), torch.tensor([[9, 5, 1], [0, 0, 0]])
    first.level_positives.copy_(counts)
    AtomicCheckpointer(first, str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    distiller = Distiller(
        student=tiny_ddod(seed=2),
        teacher=Teacher(tiny_ddod(seed=3), None),
        methods=MethodSet(pgd=PGD()),
    )
    for second in (tiny_ddod(seed=2), distiller):
        student = getattr(second, "student", second)
        AtomicCheckpointer(second).resume_or_load(path, resume=False)
        assert torch.equal(student.head.cls_score.bias, first.head.cls_score.bias)
        assert student.level_positives.sum() == 0
    resumed, bare = tiny_ddod(seed=2), tiny_ddod(seed=2)
    AtomicCheckpointer(resumed, str(tmp_path)).resume_or_load("", resume=True)
    load_strictly(bare, path)
    for found in (resumed, bare):
        assert torch.equal(found.level_positives, counts)
