"""Which checkpoints of a run stay."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.engine import RunError, Trainer
from dense_kd.engine.state.keeping import BestCheckpoint, LatestCheckpoints
from helpers.toy import toy_batch, toy_trainer


def run(folder: Path) -> tuple[Trainer, AtomicCheckpointer]:
    trainer = toy_trainer([toy_batch()] * 10)
    return trainer, AtomicCheckpointer(trainer.model, str(folder), trainer=trainer)


def train(folder: Path, start: int, end: int, **options) -> None:
    trainer, checkpointer = run(folder)
    trainer.register_hooks([LatestCheckpoints(checkpointer, **options)])
    trainer.train(start, end)


def files(folder: Path) -> list[str]:
    return sorted(path.stem.removeprefix("model_") for path in folder.glob("*.pth"))


def last(folder: Path) -> str:
    return (folder / "last_checkpoint").read_text()


def test_the_latest_stay_also_of_before_a_run_was_resumed(tmp_path):
    train(tmp_path, 0, 5, period=1, max_to_keep=2)
    assert files(tmp_path) == ["0000003", "0000004", "final"]
    train(tmp_path, 5, 8, period=1, max_to_keep=3)
    assert files(tmp_path) == ["0000005", "0000006", "0000007", "final"]
    train(tmp_path, 8, 10, period=1)
    assert len(files(tmp_path)) == 6


def test_files_of_what_is_done_again_go_first_and_never_the_one_to_resume_from(tmp_path):
    train(tmp_path, 0, 6, period=1)
    (tmp_path / "model_thesis.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")  # somebody goes back
    train(tmp_path, 2, 3, period=1, max_to_keep=1)
    assert files(tmp_path) == ["0000002", "final", "thesis"]
    assert last(tmp_path) == "model_final.pth"


def test_a_stopped_run_saves_once_and_counts(tmp_path):
    trainer, checkpointer = run(tmp_path)
    latest = LatestCheckpoints(checkpointer, period=2, max_to_keep=1)
    latest.max_iter = 6
    checkpointer.save("model_0000001", iteration=1)
    assert latest.save_now(2) == str(tmp_path / "model_0000002.pth")
    assert files(tmp_path) == ["0000002"]
    time = (tmp_path / "model_0000002.pth").stat().st_mtime_ns
    assert latest.save_now(2) == str(tmp_path / "model_0000002.pth")
    assert (tmp_path / "model_0000002.pth").stat().st_mtime_ns == time
    checkpointer.save("model_final", iteration=5)
    assert latest.save_now(5) == str(tmp_path / "model_final.pth")


def evaluate(
    folder: Path, values: list[float], resume: bool, metric: str = "bbox/AP", **options: bool
) -> list:
    """Iterations that ``model_best.pth`` is of, after an evaluation in each."""
    trainer, checkpointer = run(folder)
    best, seen = BestCheckpoint(checkpointer, metric, **options), []
    if resume:
        best.resume()

    trainer.max_iter = len(values)
    for iteration, value in enumerate(values):
        with EventStorage(iteration) as trainer.storage:
            trainer.iter = iteration + (iteration + 1 == trainer.max_iter)  # as after the last one
            best.consider({"bbox": {"AP": value, "AP50": 1.0}}, trainer)
        there = (folder / "model_best.pth").exists()
        seen.append(saved(folder)["trainer"]["iteration"] if there else None)
    return seen


def saved(folder: Path) -> dict:
    return torch.load(folder / "model_best.pth", weights_only=True)


def test_the_best_stays_and_a_resumed_run_knows_its_value(tmp_path, caplog):
    assert evaluate(tmp_path, [math.nan, 1.0, 3.0, 3.0, 2.0], resume=False) == [None, 1, 2, 2, 2]
    assert saved(tmp_path)["best"] == {"metric": "bbox/AP", "value": 3.0}
    assert evaluate(tmp_path, [2.5, 3.5], resume=True) == [2, 1]
    with caplog.at_level(logging.WARNING, "dense_kd"):
        assert evaluate(tmp_path, [0.0, 0.0], resume=True, metric="bbox/AP50") == [0, 0]
    assert "is not the best by bbox/AP50" in caplog.text
    assert saved(tmp_path)["best"] == {"metric": "bbox/AP50", "value": 1.0}
    assert not (tmp_path / "last_checkpoint").exists()


def test_the_lowest_is_the_best_where_that_is_better(tmp_path):
    values, options = [math.nan, 60.0, 46.0, 80.0], {"lower_is_better": True}
    assert evaluate(tmp_path, values, resume=False, **options) == [None, 1, 2, 2]
    assert saved(tmp_path)["best"] == {"metric": "bbox/AP", "value": 46.0}
    assert evaluate(tmp_path, [50.0, 45.0], resume=True, **options) == [2, 1]


def test_a_metric_that_there_is_not_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(RunError, match="no such metric; did you mean bbox/AP"):
        evaluate(tmp_path, [1.0], resume=False, metric="box/AP")
