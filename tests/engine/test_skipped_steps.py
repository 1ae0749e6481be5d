"""Steps that are not finite are left out, as many as is allowed, and kept for a replay."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from dense_kd.engine import Trainer
from dense_kd.engine.replay.batches import from_plain, to_plain
from helpers.builders import batch, tiny_backbone, tiny_gfl
from helpers.script_runs import assert_equal
from helpers.toy import FAULTS, Toy, toy_batch, toy_trainer
from helpers.two_processes import launch_two


class Counting(Toy):
    """Its statistics are of the batches, and what is bad of one is in them."""

    def forward(self, batch):
        losses = super().forward(batch)
        self.statistics += losses["loss_box"].detach()
        return losses


def counting(batches: list, **options) -> Trainer:
    model = Counting()
    return Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), **options)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", [0, 2])
def test_a_run_goes_on_as_if_the_step_had_not_been(fault, place, caplog):
    batches = [toy_batch()] * 4
    batches.insert(place, toy_batch(fault, "culprit"))
    run, fine = counting(batches, skip_bad_steps=1), counting([toy_batch()] * 4)
    with caplog.at_level(logging.WARNING, "dense_kd"):
        run.train(0, 5)
    fine.train(0, 4)
    assert_equal(dict(run.model.state_dict()), dict(fine.model.state_dict()))
    assert run.storage.latest()["skipped_steps"] == (1, place)
    assert "is left out (1 of train.skip_bad_steps=1)" in caplog.text
    assert "culprit.jpg" in caplog.text


@pytest.mark.parametrize("place", [0, 2])
def test_statistics_of_batch_norms_are_those_without_the_step(place):
    def train(faults: list[bool]) -> dict:
        torch.manual_seed(0)
        model, left = tiny_gfl(backbone=tiny_backbone(norm="BN")), iter(faults)
        model.backbone.bottom_up.stem.register_forward_hook(
            lambda module, args, out: out * float("nan") if next(left) else out
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        batches = [batch("usual")] * len(faults)
        Trainer(model, batches, optimizer, skip_bad_steps=1).train(0, len(faults))
        return dict(model.state_dict())

    faults = [False] * 3
    faults.insert(place, True)
    assert_equal(train(faults), train([False] * 3))


def test_a_buffer_that_begins_to_change_in_the_step_is_restored():
    class Later(Counting):
        passes = 0

        def forward(self, batch):
            self.passes += 1
            return super().forward(batch) if self.passes > 1 else Toy.forward(self, batch)

    model = Later()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [toy_batch(), toy_batch("infinite loss"), toy_batch()]
    Trainer(model, batches, optimizer, skip_bad_steps=1).train(0, 3)
    assert model.statistics.isfinite().all() and (model.statistics > 1).all()


def test_one_more_than_allowed_ends_the_run_also_after_a_resume():
    bad, fine = toy_batch("infinite loss"), toy_batch()
    first = toy_trainer([bad, fine, fine], skip_bad_steps=2)
    first.train(0, 3)
    second = toy_trainer([bad, fine, bad], skip_bad_steps=2)
    second.load_state_dict(first.state_dict())
    with pytest.raises(FloatingPointError, match="iteration 5"):
        second.train(3, 6)
    assert second.skipped_steps == 2
    with pytest.raises(ValueError, match="skip_bad_steps=-1: expected 0"):
        toy_trainer([], skip_bad_steps=-1)


def test_the_last_few_steps_are_kept_and_what_else_fails(tmp_path):
    bad = [toy_batch("infinite loss", f"bad{number}") for number in range(4)]
    run = toy_trainer([*bad, [None]], skip_bad_steps=9)
    run.recorder.keep_in(str(tmp_path), dict)
    with pytest.raises(TypeError):  # None is no image
        run.train(0, 5)
    names = sorted(os.listdir(tmp_path / "replay"))
    assert names == ["step_0000002.pth", "step_0000003.pth", "step_0000004.pth"]
    contents = [torch.load(tmp_path / "replay" / name, weights_only=True) for name in names]
    assert [content["iteration"] for content in contents] == [2, 3, 4]
    assert contents[0]["batches"] == [bad[2]]
    assert contents[2]["error"].startswith("TypeError: ")


def test_of_a_batch_that_could_not_be_loaded_there_is_nothing_to_keep(tmp_path):
    run = toy_trainer([toy_batch()])
    run.recorder.keep_in(str(tmp_path), dict)
    with pytest.raises(RuntimeError, match="loader of the training has ended before iteration 1"):
        run.train(0, 2)
    assert os.listdir(tmp_path) == []


def test_a_batch_of_images_is_kept_whole():
    images = batch("usual")
    again = from_plain(to_plain(images))
    for image, other in zip(images, again):
        assert image.keys() == other.keys()
        assert torch.equal(image["image"], other["image"])
        ours, theirs = (each["instances"].get_fields() for each in (image, other))
        assert torch.equal(ours["gt_boxes"].tensor, theirs["gt_boxes"].tensor)
        assert torch.equal(ours["gt_classes"], theirs["gt_classes"])
        assert image["instances"].image_size == other["instances"].image_size
    assert from_plain(to_plain({"image": 1, "of a user": object(), "none": None})) == {
        "image": 1,
        "none": None,
    }


def two_processes(folder: str) -> None:
    """The second one has a bad batch in the first step, and again in the third."""
    bad = toy_batch("student's loss of NaN", "culprit")
    fine, mine = toy_batch(), bad if comm.get_rank() == 1 else toy_batch()
    model = DistributedDataParallel(Toy())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Trainer(model, [mine, fine, mine], optimizer, skip_bad_steps=1)
    run.recorder.keep_in(folder, dict)
    with pytest.raises(FloatingPointError, match="iteration 2"):
        run.train(0, 3)
    alone = toy_trainer([fine])
    alone.train(0, 1)
    for ours, expected in zip(model.parameters(), alone.model.parameters()):
        assert torch.equal(ours, expected)
    (Path(folder) / str(comm.get_rank())).touch()


@pytest.mark.slow
def test_two_processes_leave_a_step_out_together_and_keep_that_of_the_culprit(tmp_path):
    launch_two(two_processes, tmp_path)
    assert (tmp_path / "0").exists() and (tmp_path / "1").exists()
    names = sorted(os.listdir(tmp_path / "replay"))
    assert names == ["step_0000000_rank1.pth", "step_0000002_rank1.pth"]
