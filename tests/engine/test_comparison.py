"""The losses that are compared, where they come from, and how a difference is shown."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import TrainerBase

import dense_kd
from dense_kd import get_config, get_config_file
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.engine.comparison import ComparisonError, recording, tables, training
from dense_kd.engine.comparison.pairs import Run

NAN = math.nan
PACKAGE = str(Path(dense_kd.__file__).parent)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Overrides that train on four small images."""
    root = tmp_path_factory.mktemp("shapes")
    generate_shapes(root, "train", 4, image_size=(64, 64))
    register_shapes("compared_train", root, "train")
    yield [
        "dataloader.train.dataset.names=compared_train",
        "dataloader.train.total_batch_size=2",
        "train.log_period=1",
    ]
    DatasetCatalog.remove("compared_train")
    MetadataCatalog.remove("compared_train")


@pytest.fixture
def same_algorithms():
    """What a test sets for the process is not left to the others."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def config(data: list[str], folder: Path, *more: str, name: str = "quickstart/gfl.py"):
    """Of GFL: its first losses in a process are those of later ones, no part is compiled."""
    options = [*data, f"train.output_dir={folder}", *more]
    return LazyConfig.apply_overrides(get_config(name), options)


def test_the_losses_of_a_run_are_the_same_each_time_and_others_with_another_seed(data, tmp_path):
    trained = TrainerBase.train
    first, again, other = (
        recording.record(config(data, tmp_path / name, f"train.seed={seed}"), 2)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    terms = ["loss_cls", "loss_box_reg", "loss_dfl"]
    assert [[*losses] for losses in first] == [[*terms, recording.TOTAL]] * 2
    assert first[0][recording.TOTAL] == sum(first[0][term] for term in terms)
    assert first == again and first[0] != other[0] and first[0] != first[1]
    assert TrainerBase.train is trained


def test_the_schedule_is_that_of_the_whole_run_and_its_end_is_no_longer_than_the_run(
    data, tmp_path
):
    """Stopping early must not be a shorter training."""
    schedules = []
    for name, iterations in (("few", 2), ("all", 9)):
        losses = recording.record(config(data, tmp_path / name, "train.max_iter=3"), iterations)
        schedules.append(losses)
    few, whole = schedules
    assert len(few) == 2 and len(whole) == 3
    assert few == whole[:2]


@pytest.mark.slow
def test_a_random_teacher_is_the_same_each_time(data, tmp_path):
    losses = []
    for name in ("first", "again"):
        cfg = config(data, tmp_path / name, name="quickstart/ld.py")
        (tmp_path / name).mkdir()
        torch.rand(1)
        recording.use_random_teacher(cfg)
        losses += recording.record(cfg, 1)
    assert losses[0] == losses[1]
    assert sum(value for term, value in losses[0].items() if term.startswith("kd_ld_")) > 0
    bare = config(data, tmp_path)
    recording.use_random_teacher(bare)
    assert "teacher" not in bare.model


def request(data: list[str], folder: Path, **changes) -> dict:
    return {
        "package": PACKAGE,
        "config": get_config_file("quickstart/student.py"),
        "overrides": data,
        "output_dir": str(folder / "output"),
        "random_teacher": False,
        "iterations": 1,
        **changes,
    }


def test_a_process_answers_with_losses_or_with_what_is_wrong(data, tmp_path, same_algorithms):
    (losses,) = recording.answer(request(data, tmp_path / "fine"))["losses"]
    assert recording.TOTAL in losses
    other = recording.answer(request(data, tmp_path / "other", package="/elsewhere/dense_kd"))
    assert "dense_kd comes from" in other["error"] and "/elsewhere/dense_kd" in other["error"]
    typo = request([*data, "model.hed.norm=BN"], tmp_path / "typo")
    assert "model.hed" in recording.answer(typo)["error"]
    assert "Traceback" not in recording.answer({**typo, "output_dir": f"{tmp_path}/2"})["error"]
    broken = tmp_path / "broken.py"
    broken.write_text("model = 1 / 0")
    answer = recording.answer(request([], tmp_path / "broken", config=str(broken)))
    assert "Traceback" in answer["error"] and "ZeroDivisionError" in answer["error"]


def test_a_run_whose_process_dies_is_an_error_with_the_end_of_its_log(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import os\nprint('out of memory', flush=True)\nos._exit(9)")
    monkeypatch.setattr(recording, "__file__", str(script))
    run = Run("student.py at HEAD", tmp_path / "student.py", tmp_path)
    with pytest.raises(ComparisonError, match="student.py at HEAD .*ended with 9\nout of memory"):
        training.losses_of(run, 1)


def test_the_script_finds_no_modules_of_its_own_folder(tmp_path, monkeypatch):
    """``import tables`` of an old commit must not find ours."""
    (tmp_path / "request.json").write_text('{"package": "nowhere"}')
    path = [str(Path(recording.__file__).parent), "the rest"]
    monkeypatch.setattr("sys.path", path)
    monkeypatch.setattr(
        "sys.argv", ["recording.py", f"{tmp_path}/request.json", f"{tmp_path}/answer.json"]
    )
    runpy.run_path(recording.__file__, run_name="__main__")
    assert path == ["the rest"]
    assert "expected nowhere" in (tmp_path / "answer.json").read_text()


A = [{"loss_cls": 1.0, "loss_box": 0.1, "total_loss": 1.1}] * 2


@pytest.mark.parametrize(
    "b, first, said",
    [
        (A, None, "equal, bit for bit, in 2 iterations"),
        (
            [A[0], {"loss_cls": 1.0, "loss_box": 0.2, "total_loss": 1.2}],
            (1, "loss_box"),
            "iteration 1 on, first in loss_box; the largest difference is 0.5 of",
        ),
        (
            [{**A[0], "loss_box": 0.1 + 1.4e-17}, A[1]],
            (0, "loss_box"),
            "the largest difference is 1.4e-16",
        ),
        ([{**A[0], "loss_box": NAN}, A[1]], (0, "loss_box"), "first in loss_box; the largest"),
        (
            [{"loss_cls": 1.0, "loss_bbox": 0.1, "total_loss": 1.1}] * 2,
            (0, "loss_box"),
            "first in loss_box, which only A has",
        ),
        ([{**A[0], "kd_x": 0.0}, A[1]], (0, "kd_x"), "first in kd_x, which only B has"),
        (A[:1], (1, "loss_cls"), "iteration 1 on, first in loss_cls, which only A has"),
    ],
)
def test_the_first_difference_is_found_and_marked(b, first, said):
    table = tables.rows(A, b)
    row = tables.first_difference(table)
    assert (row and (row.iteration, row.term)) == first
    assert said in tables.verdict(table)
    header, *lines = tables.lines(table)
    assert header.split() == ["iteration", "term", "A", "B", "B", "-", "A"]
    marked = [line for line in lines if "<- the first difference" in line]
    assert len(marked) == (first is not None)
    if first:
        assert marked[0].split()[:2] == [str(first[0]), first[1]]
    of_first = [line.split()[1] for line in lines if line.split()[0] == "0"]
    assert of_first[-1] == "total_loss"


def test_equal_numbers_that_are_not_finite_are_equal():
    same = [{"loss": NAN, "loss_box": math.inf}]
    assert tables.first_difference(tables.rows(same, [dict(same[0])])) is None
