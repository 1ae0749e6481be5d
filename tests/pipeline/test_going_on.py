"""The same command in a folder that was moved, on another machine, or with other code."""

from __future__ import annotations

import contextlib
import json
import shutil
from unittest import mock

import pytest

from dense_kd import distill
from dense_kd.engine import load_config
from dense_kd.engine.fingerprint import result_settings
from dense_kd.engine.processes import TrainingError
from dense_kd.pipeline import plan as plan_module
from dense_kd.pipeline import run as pipeline
from dense_kd.pipeline import stages
from dense_kd.pipeline.errors import PipelineError
from dense_kd.pipeline.options import DistillOptions
from dense_kd.pipeline.plan import make_plan
from dense_kd.pipeline.records import check_output, write_record
from helpers.script_runs import trainings_are_forked
from helpers.small_distillation import SMALL

OPTIONS = {**SMALL, "iterations": 1, "teacher_iterations": 1}


def distilled(images, output, **options):
    with trainings_are_forked(), mock.patch.object(pipeline, "write_page"):
        return distill(images, **{**OPTIONS, **options}, output=output)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "out"
    distilled(images, folder)
    return folder


@pytest.fixture
def moved(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "moved" / "out")


def trained_at(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/model_final.pth")}


@contextlib.contextmanager
def other_code():
    def settings(config):
        return {**result_settings(config), "code": "another", "versions": {"python": "9.0"}}

    with mock.patch.object(stages, "result_settings", settings):
        yield


@pytest.mark.slow
def test_in_a_folder_that_was_moved_nothing_is_trained_again_also_of_images_that_were_moved(
    images, moved, tmp_path, capsys
):
    before = trained_at(moved)
    elsewhere = shutil.copytree(images, tmp_path / "other disk" / "pictures")
    distilled(elsewhere, moved, num_workers=1, checkpoint_period=7, compare=True)
    text = capsys.readouterr().out
    assert text.count("used again") == 2 and "student: training 1 iterations" in text
    assert {path: trained_at(moved)[path] for path in before} == before
    assert json.loads((moved / "distill.json").read_text())["data"]["data"] == str(elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_student_of_other_code_is_not_removed_and_a_dry_run_says_so_too(images, moved, dry_run):
    before = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    with other_code(), pytest.raises(TrainingError) as error:
        distilled(images, moved, dry_run=dry_run)
    for part in ("distilled that was finished", "another code", "-> '9.0'", "--fresh"):
        assert part in str(error.value)
    assert str(moved / "distilled") in str(error.value) and "config." not in str(error.value)
    assert {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_teacher_of_other_code_teaches_and_the_log_says_so(images, moved):
    before = (moved / "teacher" / "model_final.pth").stat().st_mtime_ns
    shutil.rmtree(moved / "distilled")
    with other_code():
        distilled(images, moved)
    assert "with other code and versions, used again" in (moved / "log.txt").read_text()
    assert (moved / "teacher" / "model_final.pth").stat().st_mtime_ns == before
    assert (moved / "distilled" / "model_final.pth").is_file()


@pytest.mark.slow
def test_datasets_that_are_registered_already_are_no_hindrance(images, finished):
    load_config(str(finished / "distilled.py"))
    distilled(images, finished)


def plan_of(images, output, **changes):
    return make_plan(str(images), DistillOptions(**{**OPTIONS, **changes}, output=str(output)))


def test_a_folder_is_gone_on_with_by_any_number_of_workers(images, tmp_path):
    cuda = mock.patch.object(
        plan_module, "_devices", lambda options: plan_module.Devices("cuda:0", 1)
    )
    for cores in (8, 2):
        with cuda, mock.patch.object(plan_module, "cores", lambda cores=cores: cores):
            plan = plan_of(images, tmp_path, device="cuda")
            assert plan.numbers["workers"].value == min(4, cores - 1)
            check_output(plan)
            write_record(plan)
    given = plan_of(images, tmp_path, num_workers=3, checkpoint_period=9)
    with pytest.raises(PipelineError) as error:
        check_output(given)
    assert "device" in str(error.value) and "workers" not in str(error.value)


def test_a_record_of_before_which_has_the_workers_is_gone_on_with(images, tmp_path):
    plan = plan_of(images, tmp_path)
    write_record(plan)
    record = json.loads((tmp_path / "distill.json").read_text())
    record["options"] |= {"num_workers": 8, "checkpoint_period": 5}
    record["numbers"]["workers"] = 8
    (tmp_path / "distill.json").write_text(json.dumps(record))
    check_output(plan)


def test_other_images_are_refused_with_the_place_that_they_were_in(images, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    write_record(plan_of(images, output))
    others = shutil.copytree(images, tmp_path / "others")
    next((others / "train").glob("*.png")).unlink()
    with pytest.raises(PipelineError) as error:
        check_output(plan_of(others, output))
    assert f"data: {str(images)!r} -> {str(others)!r}" in str(error.value)
    assert "images and labels: " in str(error.value)
