"""Checkpoints that are whole or absent."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError


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
