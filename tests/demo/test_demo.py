"""Tests of the demo: its trainings as processes, and the whole of it in miniature."""

import json
import re
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

from dense_kd.demo import runs
from dense_kd.demo.demo import Options, run_demo
from dense_kd.demo.runs import DemoError, Run, read_metrics, train_together
from helpers.script_runs import fork_of, run_in_fork
from helpers.two_processes import forks

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / "tools"

# Behaves like a training, without its imports.
SCRIPT = """
import json, pathlib, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
print("this is", what)
def log(**record):
    with open(folder / "metrics.json", "a") as file:
        file.write(json.dumps(record) + "\\n")
log(iteration=19, total_loss=1.5, eta_seconds=65.0)
if what == "fails":
    print("something went wrong")
    sys.exit(3)
time.sleep(60 if what == "hangs" else 0.6)
if what != "evaluates nothing":
    log(iteration=40, **{"bbox/AP": 25.0, "bbox/APl": float("nan")})
if what != "saves nothing":
    (folder / "model_final.pth").write_text(str(time.time()))
"""


@pytest.fixture
def make_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def make(name, what="works", **settings):
        folder = tmp_path / name
        return Run(name, folder, [str(script), str(folder), what], 40, {"config": "a", **settings})

    return make


def trained_at(run):
    return (run.folder / "model_final.pth").read_text()


def test_trainings_run_at_the_same_time_and_their_metrics_are_read(make_run):
    runs = [make_run("baseline"), make_run("distilled")]
    start = time.monotonic()
    train_together(runs)
    assert time.monotonic() - start < sum(run.seconds for run in runs)
    for run in runs:
        assert run.metrics == {"bbox/AP": 25.0, "bbox/APl": None}
        assert run.seconds >= 0.6
        assert run.log.read_text() == "this is works\n"


def test_progress_is_shown_as_plain_lines(make_run, monkeypatch, capsys):
    monkeypatch.setattr(runs, "PROGRESS_PERIOD", 0.1)
    train_together([make_run("baseline")])
    output = capsys.readouterr().out
    assert "20/40  total_loss 1.500  1:05 left" in output
    assert re.search(r"baseline: done in \d+:\d\d, AP 25\.0", output)
    assert "\r" not in output and "\x1b" not in output


def test_a_training_that_fails_stops_the_other_and_shows_its_log(make_run):
    hanging, failing = make_run("baseline", "hangs"), make_run("distilled", "fails")
    start = time.monotonic()
    with pytest.raises(DemoError) as error:
        train_together([hanging, failing])
    assert time.monotonic() - start < 20
    assert "distilled failed with exit code 3" in str(error.value)
    assert str(failing.log) in str(error.value)
    assert str(error.value).endswith("something went wrong")
    assert not (hanging.folder / "model_final.pth").exists()


@pytest.mark.parametrize("what", ["evaluates nothing", "saves nothing"])
def test_a_training_without_a_result_is_an_error(make_run, what):
    with pytest.raises(DemoError, match=f"(?s)bbox/AP|model_final.*this is {what}"):
        train_together([make_run("baseline", what)])


def test_a_finished_training_is_used_again_and_says_so(make_run, capsys):
    first, second = make_run("baseline"), make_run("baseline")
    train_together([first])
    at = trained_at(first)
    capsys.readouterr()
    train_together([second])
    assert trained_at(second) == at
    assert (second.metrics, second.seconds) == (first.metrics, first.seconds)
    output = capsys.readouterr().out
    assert "used again" in output and "--fresh" in output


def test_other_settings_train_again_and_are_named(make_run, capsys):
    train_together([make_run("baseline", code="old")])
    run = make_run("baseline", code="new")
    at = trained_at(run)
    train_together([run])
    assert trained_at(run) != at
    assert "trained before with another code" in capsys.readouterr().out
    assert len(read_metrics(run.folder)) == 2  # none are left of the first training


def test_a_fresh_demo_trains_again(make_run):
    run = make_run("baseline")
    train_together([run])
    at = trained_at(run)
    train_together([run], fresh=True)
    assert trained_at(run) != at


def test_a_training_that_did_not_finish_is_repeated(make_run):
    with pytest.raises(DemoError):
        train_together([make_run("baseline", "fails")])
    run = make_run("baseline")
    train_together([run])
    assert run.metrics["bbox/AP"] == 25.0


def test_a_folder_of_something_else_is_not_removed(make_run):
    run = make_run("baseline")
    run.folder.mkdir()
    (run.folder / "thesis.tex").write_text("precious")
    with pytest.raises(DemoError, match="holds something else"):
        train_together([run])
    assert (run.folder / "thesis.tex").exists()


def test_a_line_of_metrics_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 19}\n{"iteration": 39, "los')
    assert read_metrics(tmp_path) == [{"iteration": 19}]
    assert read_metrics(tmp_path / "nothing") == []


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


class ForkedTraining:
    """In place of a ``Popen`` of the training script: a fork, which imports nothing anew."""

    def __init__(self, command, *, stdout, env, **_):
        self.process = fork_of(command[2:], [Path(stdout.name)] * 2, env)
        self.terminate, self.kill = self.process.terminate, self.process.kill
        self.wait = self.process.join

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode


@pytest.fixture(scope="module")
def summary(options):
    """Of a demo whose teacher is trained in a process as for users, and its students in forks."""
    popen = subprocess.Popen

    def start(command, **arguments):
        of_teacher = any(argument.endswith("quickstart/teacher.py") for argument in command)
        return (popen if of_teacher else ForkedTraining)(command, **arguments)

    with forks(), mock.patch.object(subprocess, "Popen", start):
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
    added = set(distilled) - set(baseline)
    assert added and all(key.startswith("kd_bckd_") for key in added)
    configs = [(run / "config.yaml").read_text() for run in runs]
    assert all("seed: 1" in text for text in configs)


def test_the_demo_leaves_curves_and_a_page_with_a_row_per_picture(options, summary):
    page = (options.output / "report.html").read_text(encoding="utf-8")
    assert page.count('class="row"') == 8
    assert (options.output / "curves.png").stat().st_size > 0


def test_a_second_demo_uses_the_trainings_again(options, summary, capsys):
    assert run_demo(options) == summary
    output = capsys.readouterr().out
    assert output.count("used again") == 3
    assert "training 1 iterations" not in output
