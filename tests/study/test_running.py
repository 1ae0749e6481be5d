"""A study is run, stopped, gone on with, and a cell of it trained again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dense_kd.cli import run_command
from dense_kd.engine.processes import Run, TrainingError
from dense_kd.json_files import read_json
from dense_kd.study import Settings, StudyError, read_study, recompute, run_study, running
from dense_kd.study.cells import Cell
from dense_kd.study.results import SAME
from dense_kd.study.watching import START, STEPS, Watch, read_watched
from dense_kd.study.worker import RESULT, run_cell
from dense_kd.teacher_cache import TeacherCache
from helpers.feature_networks import OneMap
from helpers.small_study import CONTENT, dsi_from

pytest.importorskip("hotcoco", reason="error types are counted by it")
pytestmark = pytest.mark.slow

ONE_BLOCK = ("fcos/*/1",)


def in_this_process(runs, fresh=False, *, at_once=None, finished=None, failed=None, then=None):
    """Trains as ``train_together`` does, without processes."""
    runs = list(runs)
    for run in runs:
        if not (run.folder / RESULT).exists():
            order = read_json(Path(run.command[2]))
            run_cell(
                Cell.of_json(order["cell"], "here"),
                run.folder,
                order["teacher"],
                teacher_options=order["teacher_options"],
            )
            run.seconds = 1.0
            TRAINED.append(run.title)
        if finished:
            finished(run)
        runs += then(run) if then else []  # which the loop goes on with


TRAINED: list[str] = []


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    monkeypatch.setattr(running, "train_together", in_this_process)
    TRAINED.clear()
    return TRAINED


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture
def results(shapes, study_file, output):
    return run_study(study_file(), Settings(output, only=ONE_BLOCK))


def test_a_block_is_trained_and_its_cells_differ_in_their_method_alone(results, trained, output):
    assert trained == [f"fcos/{name}/1" for name in ("teacher", "none", "kd", "pgd")]
    alone, kd, pgd = (results[f"fcos/{name}/1"] for name in ("none", "kd", "pgd"))
    assert alone["seen"] == kd["seen"] == pgd["seen"]
    assert alone["initial"] == kd["initial"] != pgd["initial"]
    assert alone["initial"]["backbone"] == pgd["initial"]["backbone"]
    assert len({each["weights"] for each in (alone, kd, pgd)}) == 3
    assert kd["teacher"] == pgd["teacher"] and alone["teacher"] is None
    (teacher,) = (output / "results").glob("fcos-teacher-*.json")
    assert read_json(teacher)["weights"] == kd["teacher"]
    assert teacher.stem.endswith(kd["teacher"][:8])


def test_a_result_has_all_that_a_cell_is_judged_by(results):
    for name, result in results.items():
        assert set(result["metrics"]) == {"study_one", "study_two", "pooled"}, name
        assert [point[0] for point in result["curve"]] == [1, 2]
        assert result["error_types"] and result["calibration"] and result["per_class"]
        assert 0 < result["cpu_seconds"] and 0 < result["seconds"] < 60
        assert result["peak_memory"] > 1e6 and result["threads"] >= 1
        assert (result["cell"]["methods"] == {}) == (result["shares"] == {})


def test_a_pair_without_a_teacher_is_trained_by_methods_that_need_none(
    shapes, study_file, tmp_path, trained
):
    torch.save(OneMap().state_dict(), tmp_path / "map.pth")
    methods = {"none": None, "dsi": {"methods": dsi_from(str(tmp_path / "map.pth"))}}
    pair = {"student": "quickstart/student", "methods": methods}
    name = study_file(pairs={"fcos": pair})
    results = run_study(name, Settings(tmp_path, only=ONE_BLOCK, teacher_gb=0.1))
    alone, dsi = (results[f"fcos/{name}/1"] for name in methods)
    assert trained == ["fcos/none/1", "fcos/dsi/1"]
    assert alone["weights"] != dsi["weights"] and dsi["teacher"] is None
    assert (alone["seen"], alone["initial"]) == (dsi["seen"], dsi["initial"])
    assert 0 < dsi["shares"]["dsi"] < 1
    assert recompute(tmp_path / "results" / "fcos-dsi-1.json", tmp_path / "again") == []


def test_a_method_that_reads_a_detector_is_refused_in_a_pair_without_a_teacher(
    study_file, tmp_path, trained
):
    pair = {**CONTENT["pairs"]["fcos"]}
    del pair["teacher"]
    with pytest.raises(StudyError, match="fcos/kd/1: teacher=None, but the methods .*kd"):
        run_study(study_file(pairs={"fcos": pair}), Settings(tmp_path))
    assert trained == [] and not list(tmp_path.iterdir())


def test_without_its_teacher_no_student_is_trained_and_the_student_alone_is(
    shapes, study_file, tmp_path, monkeypatch, trained
):
    def the_teacher_fails(runs, *, failed, **options):
        teacher, *others = runs
        failed(teacher, TrainingError("fcos/teacher/1 failed with exit code 3"))
        in_this_process(others, **options)

    monkeypatch.setattr(running, "train_together", the_teacher_fails)
    with pytest.raises(StudyError, match="3 cells failed") as raised:
        run_study(study_file(), Settings(tmp_path, only=ONE_BLOCK))
    assert "fcos/teacher/1 failed with exit code 3" in str(raised.value)
    assert "fcos/pgd/1 was not trained, since its teacher failed" in str(raised.value)
    assert trained == ["fcos/none/1"] and (tmp_path / "results" / "fcos-none-1.json").exists()


def test_what_is_there_is_not_trained_again(results, study_file, output, trained, capsys):
    trained.clear()
    again = run_study(study_file(), Settings(output, only=ONE_BLOCK))
    assert trained == [] and again == results
    assert "small: 3 of 3 cells are there" in capsys.readouterr().out
    run_study(study_file(), Settings(output, dry_run=True))
    assert capsys.readouterr().out.split()[-3:] == [f"fcos/{m}/2" for m in ("none", "kd", "pgd")]


def test_a_cell_is_trained_again_and_equal(results, output, tmp_path, trained):
    shutil.copytree(output / "fcos" / "teacher", tmp_path / "fcos" / "teacher")
    trained.clear()
    file = output / "results" / "fcos-kd-1.json"
    assert recompute(file, tmp_path) == []
    assert trained == ["fcos/kd/1"]
    changed = {**read_json(file), "seen": "other images"}
    other = tmp_path / "fcos-kd-1.json"
    other.write_text(json.dumps(changed))
    assert recompute(other, tmp_path) == ["seen"]


def test_a_killed_cell_goes_on_and_ends_as_if_it_had_not_been(
    results, study_file, tmp_path, monkeypatch
):
    cell = read_study(study_file()).blocks[0].cells[0]
    noted = Watch._note

    def killed(watch, module, args):
        if watch.trainer.iter == 1:
            raise KeyboardInterrupt
        noted(watch, module, args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Watch, "_note", killed)
        run_cell(cell, tmp_path)
    assert len((tmp_path / STEPS).read_text().splitlines()) == 1
    with open(tmp_path / STEPS, "a") as steps:
        steps.write("1 0.5")  # as if it had been killed while it wrote
    result = run_cell(cell, tmp_path, resume=True)
    assert result["processes"] == 2
    for entry in SAME:
        assert result[entry] == results[cell.name][entry], entry


def test_passes_of_the_teacher_are_shared_by_a_block_and_change_no_number(
    study_file, shapes, tmp_path, monkeypatch
):
    methods = {"kd": {"methods": {"KD": {}}}, "bckd": {"methods": {"BCKD": {}}}}
    name = study_file(pairs={"fcos": {**CONTENT["pairs"]["fcos"], "methods": methods}})
    apart = run_study(name, Settings(tmp_path / "apart", only=ONE_BLOCK))
    found = []
    count = TeacherCache._count
    monkeypatch.setattr(
        TeacherCache, "_count", lambda self, *of: found.append(of) or count(self, *of)
    )
    shared = run_study(name, Settings(tmp_path / "shared", only=ONE_BLOCK, teacher_gb=0.1))
    assert found == [(2, 0), (2, 0), (2, 2), (2, 2)]
    assert not any((tmp_path / "shared" / "passes").rglob("*.maps"))
    for cell, result in shared.items():
        assert [entry for entry in SAME if result[entry] != apart[cell][entry]] == []


def test_seconds_are_those_of_steps_in_which_the_teacher_was_run(tmp_path):
    (tmp_path / START).write_text('{"all": "a", "backbone": "b", "processes": 1}')
    lines = [f"{i} {1 + i} {2 + i} digest {int(i % 2)}" for i in range(4)]
    (tmp_path / STEPS).write_text("\n".join(lines))
    assert read_watched(tmp_path, 4, 0)["seconds"] == 4 * (2 + 4) / 2
    assert read_watched(tmp_path, 4, 4)["cpu_seconds"] == 4 * 3


def test_results_of_another_study_are_not_mixed(results, study_file, output):
    with pytest.raises(StudyError, match="fcos-kd-1.json is of a cell with other overrides"):
        run_study(study_file(overrides=["train.max_iter=3"]), Settings(output))


def test_a_block_of_other_code_is_refused_before_anything_is_trained(
    results, study_file, output, tmp_path, trained
):
    trained.clear()
    before = {**results["fcos/none/1"], "code": "of yesterday"}
    (tmp_path / "fcos-none-1.json").write_text(json.dumps(before))
    with pytest.raises(StudyError, match="fcos/none/1 and a cell that is.* differ in code"):
        run_study(study_file(), Settings(output, tmp_path, only=ONE_BLOCK))
    assert trained == [] and len(list(tmp_path.iterdir())) == 1


def test_a_part_of_a_block_is_compared_with_all_that_is_there_of_it(
    results, study_file, output, tmp_path, trained
):
    trained.clear()
    before = {**results["fcos/none/1"], "code": "of yesterday"}
    (tmp_path / "fcos-none-1.json").write_text(json.dumps(before))
    with pytest.raises(StudyError, match="fcos/none/1 and a cell that is.* differ in code"):
        run_study(study_file(), Settings(output, tmp_path, only=["fcos/kd/1"]))
    assert trained == []


def test_a_wrong_option_of_the_last_method_is_found_before_the_first_cell(
    study_file, tmp_path, trained
):
    pair = CONTENT["pairs"]["fcos"]
    methods = {**pair["methods"], "mgd": {"methods": {"MGD": {"wait": 1}}}}
    name = study_file(pairs={"fcos": {**pair, "methods": methods}})
    with pytest.raises(Exception, match="fcos/mgd/1: model cannot be built.*wait"):
        run_study(name, Settings(tmp_path))
    assert trained == [] and not list(tmp_path.iterdir())


def test_the_time_left_goes_by_the_iterations_that_are_left():
    def done(name, seconds):
        return Run(name, Path(), [], 10, {}, seconds=seconds)

    progress = running._Progress({"a": 10, "failed": 10, "long": 40}, jobs=2)
    assert progress.after(done("failed", 0.0)) == "1 of 3 cells done (0:00 so far)"
    assert progress.after(done("a", 5.0)) == "2 of 3 cells done, about 0:10 left (0:00 so far)"
    assert progress.after(done("long", 5.0)) == "3 of 3 cells done (0:00 so far)"


def test_numbers_below_one_and_a_teacher_without_weights_are_errors(study_file, tmp_path):
    with pytest.raises(StudyError, match="jobs is 0"):
        run_study(study_file(), Settings(tmp_path, jobs=0))
    with pytest.raises(StudyError, match="teacher_gb is -1"):
        run_study(study_file(), Settings(tmp_path, teacher_gb=-1))
    cell = read_study(study_file()).blocks[0].cells[1]
    with pytest.raises(StudyError, match="fcos/kd/1 has a teacher"):
        run_cell(cell, tmp_path)


def test_the_command_wants_a_study_or_a_cell(capsys):
    assert run_command("study", []) == 1
    assert run_command("study", ["shapes", "--cell", "a.json"]) == 1
    assert capsys.readouterr().err.count("give a study, or --cell") == 2


def test_the_command_compares_a_cell(results, output, tmp_path, capsys):
    shutil.copytree(output / "fcos", tmp_path / "fcos")
    file = output / "results" / "fcos-none-1.json"
    assert run_command("study", ["--cell", str(file), "--output", str(tmp_path)]) == 0
    assert f"{file}: equal in all" in capsys.readouterr().out
