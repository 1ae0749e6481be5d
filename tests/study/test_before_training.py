"""What a study finds before it trains, and what it keeps of trainings that failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.cli import run_command
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.engine import RunError
from dense_kd.engine.processes import TrainingError
from dense_kd.json_files import read_json, write_json
from dense_kd.study import Settings, StudyError, read_study, recompute, run_study, running
from dense_kd.study.cells import Cell
from dense_kd.study.results import keep, read_failures
from dense_kd.study.worker import RESULT, config_digest
from helpers.small_study import CONTENT, result_of

pytest.importorskip("hotcoco", reason="error types are counted by it")

PAIR = CONTENT["pairs"]["fcos"]
ALONE = {"fcos": {"student": "quickstart/student", "methods": {"none": None}}}


@pytest.fixture(autouse=True)
def tried(monkeypatch, shapes):
    """Titles of the trainings that were begun; those in ``fails`` fail, others have a result."""
    begun = Begun()

    def pretend(runs, *, finished=None, failed=None, then=None, **_):
        runs = list(runs)
        for run in runs:
            begun.append(run.title)
            if run.title in begun.fails:
                failed(run, TrainingError(f"{run.title} failed with exit code 1: not finite"))
                continue
            cell = Cell.of_json(read_json(Path(run.command[2]))["cell"], "here")
            here = running._surroundings_here(cell, 1)
            machine = {"cpu": here["cpu"], "gpu": here["gpu"]}
            equal = {"code": here["code"], "versions": here["versions"], "machine": machine}
            write_json(run.folder / RESULT, result_of(cell, 20.0, config=begun.config, **equal))
            if finished:
                finished(run)
            runs += then(run) if then else []

    monkeypatch.setattr(running, "train_together", pretend)
    monkeypatch.setattr(running, "file_weights_digest", lambda file: "7eac4e20")
    return begun


class Begun(list):
    fails: tuple[str, ...] = ()
    config = "c0ffee"


def test_each_dataset_is_looked_at_before_a_cell_is_trained(study_file, tmp_path, tried):
    name = study_file(pairs=ALONE, evaluate=["study_one", "study_tow"])
    for dry_run in (True, False):
        with pytest.raises(StudyError, match="no dataset 'study_tow' is .*did you mean study_two"):
            run_study(name, Settings(tmp_path, dry_run=dry_run))
    assert tried == [] and not list(tmp_path.iterdir())


@pytest.fixture
def other_dataset(tmp_path):
    """Registers a dataset, with or without its file."""
    names = []

    def register(change=None):
        root = tmp_path / "other"
        if change is not None:
            file = Path(generate_shapes(root, "one", 2, image_size=(64, 64)))
            content = json.loads(file.read_text())
            change(content["categories"])
            file.write_text(json.dumps(content))
        register_shapes("study_other", root, "one")
        names.append("study_other")
        return "study_other"

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_files_of_the_last_dataset_are_looked_at_before_a_cell_is_trained(
    study_file, tmp_path, tried, other_dataset
):
    name = study_file(pairs=ALONE, evaluate=["study_one", other_dataset()])
    with pytest.raises(RunError, match="study_other: .* does not exist"):
        run_study(name, Settings(tmp_path))
    assert tried == []


def test_datasets_of_other_classes_are_refused_before_a_cell_is_trained(
    study_file, tmp_path, tried, other_dataset
):
    def swap(categories):
        first, second, *_ = categories
        first["name"], second["name"] = second["name"], first["name"]

    name = study_file(pairs=ALONE, evaluate=["study_one", other_dataset(swap)])
    with pytest.raises(StudyError, match="study_one has the classes .*, and study_other has"):
        run_study(name, Settings(tmp_path))
    assert tried == []


def test_a_block_that_was_begun_with_another_config_is_refused(study_file, tmp_path, tried):
    name = study_file(seeds=[1])
    (block,) = read_study(name).blocks
    keep(tmp_path, result_of(block.cells[0], 20.0, config="of yesterday", commit="0123456789ab"))
    settings = Settings(tmp_path, tmp_path, only=["fcos/kd/1"])
    with pytest.raises(
        StudyError, match="fcos-none-1.json was trained with another config: quickstart/student.*"
        r"commit 0123456789\)",
    ):  # fmt: skip
        run_study(name, settings)
    assert tried == []
    here = running._surroundings_here(block.cells[0], 1)
    machine = {"cpu": here["cpu"], "gpu": here["gpu"]}
    equal = {"code": here["code"], "versions": here["versions"], "machine": machine}
    keep(tmp_path, result_of(block.cells[0], 20.0, config=config_digest(block.cells[0]), **equal))
    run_study(name, settings)
    assert tried == ["fcos/teacher/1", "fcos/kd/1"]


def test_a_cell_that_is_trained_again_is_told_of_another_config(
    study_file, tmp_path, tried, capsys
):
    cell = read_study(study_file(pairs=ALONE)).blocks[0].cells[0]
    file = keep(tmp_path, result_of(cell, 20.0))
    recompute(file, tmp_path / "again")
    told = "fcos/none/1 had another config: quickstart/student"
    assert told in capsys.readouterr().out and tried == ["fcos/none/1"]
    keep(tmp_path, result_of(cell, 20.0, config=config_digest(cell)))
    recompute(file, tmp_path / "again")
    assert told not in capsys.readouterr().out


def test_a_cell_that_is_trained_again_has_its_images_made_as_a_study_makes_them(
    study_file, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(running, "generate_shapes", lambda root, split, size: made.append(split))
    name = study_file(pairs=ALONE, evaluate=["shapes_val"], seeds=[1])
    (cell,) = read_study(name).cells()
    monkeypatch.setattr(running, "_check_data", lambda cells: None)
    recompute(keep(tmp_path, result_of(cell, 20.0)), tmp_path / "again")
    again, made[:] = sorted(made), []
    run_study(name, Settings(tmp_path / "study"))
    assert again == sorted(made) == ["train", "val"]


def test_a_training_that_failed_is_kept_among_the_results_until_it_does_not(
    study_file, tmp_path, tried
):
    name, settings = study_file(seeds=[1]), Settings(tmp_path)
    tried.fails = ("fcos/kd/1",)
    with pytest.raises(StudyError, match="1 cells failed"):
        run_study(name, settings)
    (failure,) = read_failures(tmp_path / "results").values()
    assert failure["cell"]["method"] == "kd" and "not finite" in failure["error"]
    assert failure["machine"]["cpu"] and failure["date"]
    tried.fails = ()
    for file in (tmp_path / "results").glob("fcos-*.json"):
        cell = Cell.of_json(read_json(file)["cell"], "here")
        write_json(file, {**read_json(file), "config": config_digest(cell)})
    assert set(run_study(name, settings)) == {f"fcos/{m}/1" for m in PAIR["methods"]}
    assert read_failures(tmp_path / "results") == {}


def test_a_teacher_that_failed_is_not_tried_again_for_another_seed(study_file, tmp_path, tried):
    tried.fails = ("fcos/teacher/1",)
    with pytest.raises(StudyError, match="5 cells failed") as raised:
        run_study(study_file(), Settings(tmp_path))
    assert tried == ["fcos/teacher/1", "fcos/none/1", "fcos/none/2"]
    assert "fcos/pgd/2 was not trained, since its teacher failed" in str(raised.value)
    assert list(read_failures(tmp_path / "results")) == ["fcos/teacher/1"]


@pytest.mark.parametrize(
    "option",
    [["--dry-run"], ["--jobs", "3"], ["--results", "r"], ["--only", "a/b/1"], ["--teacher-gb=5"]],
)
def test_an_option_of_a_study_is_refused_for_a_cell(option, capsys, tried):
    assert run_command("study", ["--cell", "fcos-kd-1.json", *option]) == 1
    assert f"{option[0].partition('=')[0]}: of a study, and --cell" in capsys.readouterr().err
    assert tried == []


@pytest.mark.parametrize("option", ["--jobs", "--threads"])
def test_0_is_no_number_of_jobs_or_threads(option, study_file, tmp_path, capsys, tried):
    assert run_command("study", [study_file(), option, "0", "--output", str(tmp_path)]) == 1
    cell = read_study(study_file()).blocks[0].cells[0]
    file = keep(tmp_path, result_of(cell, 20.0))
    if option == "--threads":
        assert run_command("study", ["--cell", str(file), option, "0"]) == 1
    told = f"dense-kd: {option[2:]} is 0; expected 1 or more"
    assert set(capsys.readouterr().err.splitlines()) == {told}
    assert tried == []
