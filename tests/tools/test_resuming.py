"""A run that is stopped, killed, resumed and changed, by the script."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.evaluation import COCOEvaluator

from dense_kd.checkpoint import CheckpointError
from dense_kd.engine import RunError, trainer
from dense_kd.engine.finite import StepNumbers
from dense_kd.errors import EXIT_PREEMPTED, Preempted
from helpers.script_runs import SCRIPT, assert_equal, fork_of, metrics, run
from helpers.two_processes import forks

pytestmark = pytest.mark.slow

STUDENT = "quickstart/student.py"
DONE = 4


def options(folder: Path, *more: str) -> list[str]:
    return [f"train.output_dir={folder}", "train.checkpointer.period=2", *more]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(STUDENT, [*data, *options(folder, f"train.max_iter={DONE}")])
    return folder


@pytest.fixture
def again(data, finished, tmp_path):
    """A function that runs the script in a copy of the folder of a finished run."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def call(*more: str, resume: bool = True, config: str = STUDENT) -> dict:
        flags = ["--resume"] if resume else []
        return run(config, [*data, *options(folder), f"train.max_iter={DONE}", *more], *flags)

    call.folder = folder
    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def final(folder: Path) -> dict:
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_same_end(folder: Path, expected: Path) -> None:
    """Bit for bit, with the state of optimizer, loader and generators."""
    resumed, whole = final(folder), final(expected)
    for part in ("model", "trainer", "iteration"):
        assert_equal(resumed[part], whole[part], part)


def test_a_folder_with_a_run_is_left_as_it_is(again):
    before = contents(again.folder)
    for more in ([], ["optimizer.lr=0.5"]):
        with pytest.raises(RunError, match=f"finished run .model_final.pth, {DONE} of {DONE}"):
            again(*more, resume=False)
    with pytest.raises(RunError, match="(?s)another run.*model._target_"):
        again(config="quickstart/gfl.py")
    assert contents(again.folder) == before


def test_a_finished_run_is_evaluated_again_and_stays_as_it_is(again):
    before = contents(again.folder)
    assert "AP" in again()["bbox"]
    after = contents(again.folder)
    assert all(after[name] == before[name] for name in before if name.endswith(".pth"))
    assert "All 4 iterations are done already" in (again.folder / "log.txt").read_text()
    assert metrics(again.folder)[-1]["iteration"] == DONE


def test_the_config_of_a_run_is_written_when_it_begins_and_by_nothing_else(
    again,
    data,
):
    path = again.folder / "config.yaml"
    written = path.read_text()
    assert LazyConfig.load(str(path)).train.max_iter == DONE
    other = [*data, *options(again.folder, "train.max_iter=9", "model.test_nms_thresh=0.5")]
    evaluated = f"train.init_checkpoint={again.folder / 'model_final.pth'}"
    run(STUDENT, [*other, evaluated], "--eval-only")
    again("optimizer.lr=0.5")  # has nothing to train any more
    for refused, error in (
        ("train.max_iter=2", RunError),
        ("model.head.norm=", CheckpointError),
        ("model.head.conv_dims=[]", RunError),
    ):
        with pytest.raises(error):
            again("train.max_iter=9", refused)
    assert path.read_text() == written
    again("train.max_iter=5")
    assert LazyConfig.load(str(path)).train.max_iter == 5


@pytest.mark.parametrize("stale", [False, True])
def test_a_run_that_was_killed_in_its_last_save_gets_its_final_checkpoint(again, finished, stale):
    folder = again.folder
    if stale:  # of the same run, before it was given more iterations
        shutil.copy(folder / "model_0000001.pth", folder / "model_final.pth")
    else:
        os.remove(folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    again()
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    whole, mended = final(finished), final(folder)
    assert mended["iteration"] == whole["iteration"] == DONE - 1
    for part in ("model", "trainer"):
        assert_equal(mended[part], whole[part])


def test_changes_are_said_and_used(again):
    again("train.max_iter=6", "optimizer.lr=0.5", "dataloader.train.total_batch_size=4")
    log = (again.folder / "log.txt").read_text()
    for change in (
        "train.max_iter: 4 -> 6",
        "optimizer.lr: 0.002 -> 0.5",
        "dataloader.train.total_batch_size: 2 -> 4",
    ):
        assert change in log
    assert {
        group["initial_lr"] for group in final(again.folder)["trainer"]["optimizer"]["param_groups"]
    } == {0.5}
    assert final(again.folder)["trainer"]["data_loader"]["num_images"] == 4 * 2 + 2 * 4


def test_an_overwritten_run_is_gone(again, finished):
    again("train.overwrite=True", "train.max_iter=1", resume=False)
    assert sorted(p.name for p in again.folder.glob("*.pth")) == ["model_final.pth"]
    assert final(again.folder)["iteration"] == 0
    lines = [line["iteration"] for line in metrics(again.folder) if "total_loss" in line]
    assert lines == [0]


@pytest.mark.parametrize("iteration", [1, 3])
def test_a_step_that_is_not_finite_leaves_the_run_to_be_resumed(
    again, finished, monkeypatch, iteration
):
    shutil.rmtree(again.folder)
    check = StepNumbers.check

    def fail(step, scaler):
        if step.iteration == iteration:
            step.norm = torch.tensor(float("nan"))
        return check(step, scaler)

    monkeypatch.setattr(trainer.StepNumbers, "check", fail)
    with pytest.raises(FloatingPointError, match="(?s)loss_fcos_cls=.*images: .*png"):
        again(resume=False)
    assert not (again.folder / "model_final.pth").exists()
    assert not any("bbox/AP" in line for line in metrics(again.folder))
    monkeypatch.undo()
    again()
    assert_same_end(again.folder, finished)


@pytest.mark.parametrize("place", ["step", "evaluation", "last evaluation"])
def test_a_run_that_is_told_to_stop_goes_on_to_the_same_end(again, finished, place):
    shutil.rmtree(again.folder)
    step, process = trainer.Trainer.run_step, COCOEvaluator.process
    iteration = DONE if place == "last evaluation" else 2  # 1 and 3 are saved anyway
    seen = []

    def stop_in_step(self):
        step(self)
        seen.append(self.iter)
        if place == "step" and self.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop_in_evaluation(self, inputs, outputs):
        process(self, inputs, outputs)
        if place != "step" and len(seen) == iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    period = "train.eval_period=2"
    with mock.patch.object(trainer.Trainer, "run_step", stop_in_step):
        with mock.patch.object(COCOEvaluator, "process", stop_in_evaluation):
            with pytest.raises(Preempted, match="goes on .exit code 75"):
                again(period, resume=False)
    evaluated = [line["iteration"] for line in metrics(again.folder) if "bbox/AP" in line]
    assert evaluated == {"step": [1], "evaluation": [], "last evaluation": [1]}[place]
    assert (again.folder / "model_0000002.pth").exists() == (place == "step")
    again(period)
    evaluated = [line["iteration"] for line in metrics(again.folder) if "bbox/AP" in line]
    assert evaluated == [1, 4]
    assert_same_end(again.folder, finished)


def test_the_best_by_a_metric_stays_beside_the_final_one(again):
    shutil.rmtree(again.folder)
    values = iter([2.0, 1.0, 3.0])  # after 2 iterations, 4, and 6 of the resumed run
    options = ["train.eval_period=2", "train.checkpointer.best=bbox/AP"]
    evaluated = mock.patch.object(
        COCOEvaluator, "evaluate", lambda self: {"bbox": {"AP": next(values)}}
    )
    with evaluated:
        again(*options, resume=False)
        best = torch.load(again.folder / "model_best.pth", weights_only=True)
        assert (best["iteration"], best["best"]["value"]) == (1, 2.0)
        assert final(again.folder)["iteration"] == DONE - 1
        again(*options, "train.max_iter=6")
    best = torch.load(again.folder / "model_best.pth", weights_only=True)
    assert_equal(best.pop("best"), {"metric": "bbox/AP", "value": 3.0})
    assert_equal(best["model"], final(again.folder)["model"])
    assert best["iteration"] == best["trainer"]["iteration"] == 5
    assert (again.folder / "last_checkpoint").read_text() == "model_final.pth"


def processes_below(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(below for child in children for below in processes_below(int(child)))]


def test_a_command_that_gets_a_signal_ends_with_a_code_of_its_own(data, tmp_path):
    """Of two processes, when all that there are get it, as from a scheduler."""
    folder, logs = tmp_path / "run", [tmp_path / "stdout", tmp_path / "stderr"]
    for log in logs:
        log.touch()
    more = ["train.max_iter=100000", "--num-gpus", "2", "dataloader.train.num_workers=1"]
    more = [f"train.output_dir={folder}", "train.checkpointer.period=100000", *more]
    with forks():
        process = fork_of([str(SCRIPT), STUDENT, *data, *more], logs, {})
        deadline = time.monotonic() + 60
        while not (folder / "metrics.json").exists() or not metrics(folder):
            assert process.is_alive() and time.monotonic() < deadline, logs[1].read_text()
            time.sleep(0.05)
        told = processes_below(process.pid)
        assert len(told) == 1 + 2 + 2
        for each in told:
            os.kill(each, signal.SIGTERM)
        process.join(60)
    assert process.exitcode == EXIT_PREEMPTED, logs[1].read_text()[-3000:]
    last = (folder / "last_checkpoint").read_text()
    done = torch.load(folder / last, weights_only=True)["iteration"] + 1
    assert last == f"model_{done - 1:07d}.pth"
    for name in ("log.txt", "log.txt.rank1"):
        said = f"Stopped by SIGTERM with {done} of 100000 iterations done"
        assert (folder / name).read_text().count(said) == 1
    assert "Traceback" not in "".join(log.read_text() for log in logs)
