"""Tests of the demo, the whole of it in miniature."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from dense_kd import compat
from dense_kd.demo import DemoError, Options, demo, run_demo
from dense_kd.engine.processes import TrainingError, read_metrics
from helpers.script_runs import run_in_fork, trainings_are_forked

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("option", ["seeds", "train_images", "student_iters"])
def test_a_number_below_one_is_an_error(tmp_path, option):
    with pytest.raises(DemoError, match=f"{option} is 0, expected 1 or more"):
        run_demo(Options(script=TOOLS, output=tmp_path, **{option: 0}))


def test_the_tool_ends_with_an_error_in_words(tmp_path):
    result = run_in_fork(["--seeds", "0"], tmp_path, script=TOOLS / "demo.py")
    assert result.returncode == 1
    assert result.stderr.strip() == "The demo failed: seeds is 0, expected 1 or more"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return Options(
        script=TOOLS / "lazyconfig_train_net.py",
        output=folder / "output",
        data=folder / "datasets",
        train_images=16,
        val_images=8,
        teacher_iters=2,
        student_iters=1,
    )


@pytest.fixture(scope="module")
def summary(options):
    with trainings_are_forked():
        return run_demo(options)


def test_the_summary_holds_every_detector(options, summary):
    assert json.loads((options.output / "summary.json").read_text()) == summary
    keys = {"AP", "AP50", "AP75", "APs", "APm", "APl", "parameters", "iterations", "seconds"}
    for name in ("teacher", "baseline", "distilled"):
        assert set(summary[name]) == keys
        assert summary[name]["seconds"] > 0
        assert summary[name]["APl"] is None  # images of 128 pixels have no large objects
    assert (summary["teacher"]["iterations"], summary["distilled"]["iterations"]) == (2, 1)
    assert summary["teacher"]["parameters"] > summary["baseline"]["parameters"]
    # Of the bare detector: what distillation needs in training is not counted.
    assert summary["distilled"]["parameters"] == summary["baseline"]["parameters"]
    assert set(summary["seeds"]) == {"1"}
    assert "gain_AP" in summary


def test_the_students_differ_in_the_distillation_alone(options, summary):
    runs = [options.output / "seed1" / name for name in ("baseline", "distilled")]
    baseline, distilled = (read_metrics(run)[0] for run in runs)
    added = set(distilled) - set(baseline) - {"teacher_cache/hits"}
    assert added and all(key.startswith("kd_bckd_") for key in added)
    configs = [(run / "config.yaml").read_text() for run in runs]
    assert all("seed: 1" in text for text in configs)


def test_all_are_trained_in_the_precision_that_is_faster_here(options, summary):
    faster = "bfloat16" if compat.cpu_has_bfloat16() else "float32"
    assert summary["settings"]["precision of the trainings"] == faster
    for run in ("teacher", "seed1/baseline", "seed1/distilled"):
        config = yaml.unsafe_load((options.output / run / "config.yaml").read_text())
        assert config["train"]["amp"]["enabled"] == (faster == "bfloat16")


@pytest.mark.parametrize(
    "has, precision, expected",
    [
        (True, None, "bfloat16"),
        (False, None, "float32"),
        (True, "float32", "float32"),
        (False, "bfloat16", "bfloat16"),
    ],
)
def test_each_training_is_told_the_precision(options, monkeypatch, has, precision, expected):
    monkeypatch.setattr(compat, "cpu_has_bfloat16", lambda: has)
    told = []

    def stop(runs, **_):
        told.extend(runs[0].command)
        raise TrainingError("far enough")

    monkeypatch.setattr(demo, "train_together", stop)
    with pytest.raises(TrainingError, match="far enough"):
        run_demo(dataclasses.replace(options, precision=precision))
    amp = {"train.amp.enabled=True", f"train.amp.dtype={expected}"}
    assert (amp <= set(told)) == (expected == "bfloat16")
    assert any("train.amp" in word for word in told) == (expected == "bfloat16")


def test_the_teacher_is_run_on_an_image_once(options, summary):
    config = yaml.unsafe_load((options.output / "seed1/distilled/config.yaml").read_text())
    assert config["model"]["teacher"]["cache"] == "memory"
    assert read_metrics(options.output / "seed1/distilled")[0]["teacher_cache/hits"] == 0


def test_another_precision_is_an_error(tmp_path):
    with pytest.raises(DemoError, match="precision is 'float16', expected float32 or bfloat16"):
        run_demo(Options(script=TOOLS, output=tmp_path, precision="float16"))


def test_the_demo_leaves_curves_and_a_page_with_a_row_per_picture(options, summary):
    page = (options.output / "report.html").read_text(encoding="utf-8")
    assert page.count('class="row"') == 8
    assert (options.output / "curves.png").stat().st_size > 0


def test_a_second_demo_uses_the_trainings_again(options, summary, capsys):
    assert run_demo(options) == summary
    output = capsys.readouterr().out
    assert output.count("used again") == 3
    assert "training 1 iterations" not in output
