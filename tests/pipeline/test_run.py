"""From images to a distilled student, in miniature."""

import contextlib
import json
import os
import signal
from unittest import mock

import pytest
import torch
from detectron2.config import instantiate

from dense_kd import distill, engine, named_detector
from dense_kd.checkpoint import load_strictly
from dense_kd.cli import main
from dense_kd.engine.processes import TrainingError
from dense_kd.engine.trainer import Trainer
from dense_kd.errors import Preempted
from dense_kd.pipeline import run as pipeline
from dense_kd.pipeline.errors import PipelineError
from dense_kd.pipeline.options import DistillOptions
from dense_kd.pipeline.plan import make_plan
from helpers.script_runs import assert_equal, run, trainings_are_forked
from helpers.small_distillation import SMALL

pytestmark = pytest.mark.slow


def distilled(images, output, page=False, **options):
    """Trained in forks; the page is drawn only where it is looked at."""
    no_page = contextlib.nullcontext() if page else mock.patch.object(pipeline, "write_page")
    with trainings_are_forked(), no_page:
        return distill(images, **{**SMALL, **options}, output=output)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("distill") / "out"


@pytest.fixture(scope="module")
def summary(images, output):
    return distilled(images, output, page=True, compare=True)


def weights(file):
    return torch.load(file, weights_only=True)["model"]


def test_every_detector_has_its_metrics_on_validation_and_test_images(output, summary):
    assert json.loads((output / "metrics.json").read_text()) == summary
    assert list(summary["detectors"]) == ["teacher", "student", "distilled"]
    for detector in summary["detectors"].values():
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl"} <= set(detector["val"])
        assert detector["val"] == detector["test"]  # the same images in this dataset
    assert summary["detectors"]["teacher"]["iterations"] == 4
    assert summary["detectors"]["distilled"]["iterations"] == 2


def test_the_bare_student_loads_into_the_plain_detector(output, summary):
    student = engine.load_config(str(output / "student.py"))
    load_strictly(instantiate(student.model), str(output / "distilled.pth"))


def test_the_students_have_equal_terms(output, summary):
    lines = [
        json.loads((output / name / "metrics.json").read_text().splitlines()[0])
        for name in ("student", "distilled")
    ]
    configs = [engine.load_config(str(output / f"{name}.py")) for name in ("student", "distilled")]
    assert lines[0]["lr"] == lines[1]["lr"]
    assert all(key.startswith("kd_bckd_") for key in set(lines[1]) - set(lines[0]))
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert configs[0][part] == configs[1][part]


def test_the_folder_holds_problems_log_and_a_page_of_all_detectors(output, summary):
    assert (output / "data_problems.txt").is_file()
    assert "stage 3: dense-kd train" in (output / "log.txt").read_text()
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count('class="row"') == 4 and "on the test images" in page


def test_the_folder_is_reported_on_as_three_runs_with_pictures(output, summary, tmp_path):
    page = tmp_path / "report.html"
    command = ["report", str(output), "--output", str(page), "--images", "2"]
    assert main([*command, "--title", "student=<alone>"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count('class="row"') == 2
    for name in ("teacher", "&lt;alone&gt;", "distilled"):
        assert f'<th scope="row">{name}</th>' in text


@pytest.mark.parametrize("name", ["student", "distilled"])
def test_a_run_config_repeats_its_training_exactly(output, summary, name, tmp_path):
    run(str(output / f"{name}.py"), [f"train.output_dir={tmp_path}"])
    repeated, first = (weights(folder / "model_final.pth") for folder in (tmp_path, output / name))
    assert_equal(repeated, first)


def test_the_same_again_trains_nothing(images, output, summary, capsys):
    assert distilled(images, output, compare=True) == summary
    text = capsys.readouterr().out
    assert text.count("used again") == 3 and ": training " not in text


def test_other_options_in_the_same_folder_are_refused_by_name(images, output, summary):
    with pytest.raises(PipelineError) as error:
        distilled(images, output, iterations=3)
    assert "iterations: 2 -> 3" in str(error.value) and "--fresh" in str(error.value)
    assert "short_edge" not in str(error.value)


def test_a_folder_of_something_else_is_refused(images, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(PipelineError, match="holds something else"):
        distilled(images, tmp_path)


def test_a_distillation_that_was_stopped_goes_on_to_the_same_numbers(
    images, output, summary, tmp_path, capsys
):
    step = Trainer.run_step

    def is_told_to_stop(self):
        if self.iter == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    def stops(self):
        if self.iter == 2:
            raise KeyError("stopped in the middle")
        step(self)

    with mock.patch.object(Trainer, "run_step", is_told_to_stop):
        with pytest.raises(Preempted, match="teacher stopped .* the same command goes on"):
            distilled(images, tmp_path)
    assert (tmp_path / "teacher" / "model_0000000.pth").exists()
    with mock.patch.object(Trainer, "run_step", stops):
        with pytest.raises(TrainingError) as error:
            distilled(images, tmp_path)
    assert "teacher failed" in str(error.value)
    assert str(error.value).endswith("KeyError: 'stopped in the middle'")
    again = distilled(images, tmp_path)
    assert "teacher: going on with 4 iterations" in capsys.readouterr().out
    assert_equal(weights(tmp_path / "distilled.pth"), weights(output / "distilled.pth"))
    found, expected = (s["detectors"]["distilled"] for s in (again, summary))
    assert (found["val"], found["weights"]) == (expected["val"], expected["weights"])


def test_two_processes_train_too(images, tmp_path):
    result = distilled(images, tmp_path, num_gpus=2)
    assert [d["iterations"] for d in result["detectors"].values()] == [4, 2]
    for name in ("teacher", "distilled"):
        assert "Process 0 of 2" in (tmp_path / name / "stdout.txt").read_text()
    assert (tmp_path / "distilled.pth").is_file()


def test_a_teacher_that_is_ready_is_evaluated_and_not_trained(images, output, summary, tmp_path):
    teacher = str(output / "teacher" / "model_final.pth")
    options = dict(teacher_weights=teacher, teacher_iterations=0, iterations=1)
    half = dict(precision="bfloat16", teacher_precision="float32")
    cache = tmp_path / "cache"
    result = distilled(images, tmp_path, **options, **half, teacher_cache=cache)
    assert len([*cache.glob("*/*.maps")]) == 4  # one batch
    cfg = engine.load_config(str(tmp_path / "distilled.py"))
    assert cfg.train.amp == {"enabled": True, "dtype": "bfloat16"}
    assert cfg.model.teacher.precision == "float32" and cfg.model.teacher.fold_norms
    assert cfg.model.teacher.cache == str(cache)
    assert result["detectors"]["teacher"]["val"] == summary["detectors"]["teacher"]["val"]
    assert result["detectors"]["teacher"]["iterations"] == 0
    assert not (tmp_path / "teacher").exists()


def test_a_checkpoint_that_carries_its_config_is_a_teacher(images, output, summary):
    file = str(output / "teacher" / "model_final.pth")
    options = {**SMALL, "teacher": file, "teacher_iterations": None}
    plan = make_plan(str(images), DistillOptions(**options))
    assert not plan.teacher.trained and plan.teacher.weights == file
    others = named_detector(file, classes=["cat", "dog"])
    model = instantiate(others.model)
    assert model.head.num_classes == 2 and others.train.init_checkpoint == file
    with pytest.raises(ValueError, match="does not say what it is a checkpoint of"):
        without = output / "without.pth"
        torch.save({"model": weights(file)}, without)
        named_detector(str(without), classes=["cat", "dog"])
