"""Tests of trainings as processes, with a script that behaves like one."""

import contextlib
import io
import os
import re
import signal
import threading
import time

import pytest
from detectron2.utils.events import EventStorage, JSONWriter

from dense_kd.engine import processes
from dense_kd.engine.processes import Run, TrainingError, read_metrics, train_together
from dense_kd.errors import Preempted

pytestmark = pytest.mark.slow

# Behaves like a training, without its imports.
SCRIPT = """
import json, pathlib, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
print("this is", what + (", resumed" if sys.argv[3:] == ["--resume"] else ""))
def log(**record):
    with open(folder / "metrics.json", "a") as file:
        file.write(json.dumps(record) + "\\n")
log(iteration=19, total_loss=1.5, eta_seconds=65.0)
if what == "fails":
    print("something went wrong")
    sys.exit(3)
if what == "is told to stop":
    sys.exit(75)
while what == "is looked at" and not (folder / "seen").exists():
    time.sleep(0.01)
time.sleep(60 if what == "hangs" else 0.3)
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
        command = [str(script), str(folder), what]
        return Run(name, folder, command, 40, {"config": "a", **settings})

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
        assert run.seconds >= 0.3
        assert run.log.read_text() == "this is works\n"


def test_so_many_train_at_once_and_each_is_told_of_as_it_ends(make_run):
    runs, told = [make_run(name) for name in "abc"], []
    train_together(runs[:1])
    train_together(runs, at_once=1, finished=lambda run: told.append(run.title))
    assert told == ["a", "b", "c"]  # the first was used again
    assert float(trained_at(runs[2])) - float(trained_at(runs[1])) >= 0.3


def test_one_that_fails_is_told_of_and_the_others_go_on(make_run):
    failed = {}
    runs = [make_run("wrong", "fails"), make_run("right"), make_run("later")]
    train_together(runs, at_once=2, failed=lambda run, error: failed.update({run.title: error}))
    assert "wrong failed with exit code 3" in str(failed.pop("wrong")) and not failed
    assert [run.metrics.get("bbox/AP") for run in runs] == [None, 25.0, 25.0]


def test_what_needs_another_one_begins_when_that_is_done_and_waits_for_no_other(make_run):
    first, later, last = (make_run(name) for name in ("first", "later", "last"))
    beside = make_run("beside", "is looked at")  # trains until it is seen
    after, told = {"first": [later], "later": [last]}, []

    def finished(run):
        told.append(run.title)
        if run is later:
            (beside.folder / "seen").touch()

    options = {"at_once": 2, "finished": finished, "then": lambda run: after.get(run.title, [])}
    train_together([first, beside], **options)
    assert told[:2] == ["first", "later"] and {*told[2:]} == {"beside", "last"}
    told.clear()
    train_together([first, beside], **options)
    assert told == ["first", "later", "last", "beside"]  # all were used again


def test_none_is_started_after_one_was_told_to_stop(make_run):
    runs = [make_run("first", "is told to stop"), make_run("second")]
    with pytest.raises(Preempted, match="first stopped"):
        train_together(runs, at_once=1)
    assert not runs[1].folder.exists()


def test_progress_is_shown_as_plain_lines(make_run, monkeypatch, capsys):
    monkeypatch.setattr(processes, "PROGRESS_PERIOD", 0.1)
    train_together([make_run("baseline")])
    output = capsys.readouterr().out
    assert "20/40  total_loss 1.500  1:05 left" in output
    assert re.search(r"baseline: done in \d+:\d\d, AP 25\.0", output)
    assert "\r" not in output and "\x1b" not in output


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_each_training_has_a_bar_below_what_is_printed(make_run, monkeypatch):
    monkeypatch.setattr(processes, "BAR_PERIOD", 0.0)
    terminal = Terminal()
    runs = [make_run(title, "is looked at") for title in ("baseline", "distilled")]

    def show(bars, title, records):
        shown(bars, title, records)
        if records:
            (runs[0].folder.parent / title / "seen").touch()

    shown = processes.ProcessBars.show
    monkeypatch.setattr(processes.ProcessBars, "show", show)
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        train_together(runs)
    text = terminal.getvalue()
    for title in ("baseline ", "distilled"):
        assert re.search(rf"{title}  50%\|.*\| 20/40, 0:01:05 left, total_loss 1.500", text)
    assert "so far)" not in text  # the lines that stand for bars elsewhere
    printed = re.split(r"[\r\n]|\x1b\[A", text)
    assert sum(bool(re.match(r"\[.*: done in \d:\d\d, AP 25.0$", line)) for line in printed) == 2
    assert not printed[-1].strip()


def test_a_training_that_waits_has_no_bar_and_takes_the_line_of_one_that_ended(
    make_run, monkeypatch
):
    monkeypatch.setattr(processes, "BAR_PERIOD", 0.0)
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        train_together([make_run("first"), make_run("later")], at_once=1)
    text = terminal.getvalue()
    assert 0 <= text.index("20/40, 0:01:05 left") < text.index("first: done")
    assert "later  50%" not in text[: text.index("first: done")]
    assert "later  50%" in text and "\x1b[A" not in text  # which goes to a second line


def test_a_training_that_fails_stops_the_other_and_shows_its_log(make_run):
    hanging, failing = make_run("baseline", "hangs"), make_run("distilled", "fails")
    start = time.monotonic()
    with pytest.raises(TrainingError) as error:
        train_together([hanging, failing])
    assert time.monotonic() - start < 20
    assert "distilled failed with exit code 3" in str(error.value)
    assert str(failing.log) in str(error.value)
    assert str(error.value).endswith("something went wrong")
    assert not (hanging.folder / "model_final.pth").exists()


@pytest.mark.parametrize("what", ["evaluates nothing", "saves nothing"])
def test_a_training_without_a_result_is_an_error(make_run, what):
    with pytest.raises(TrainingError, match=f"(?s)bbox/AP|model_final.*this is {what}"):
        train_together([make_run("baseline", what)])


def test_a_finished_training_is_used_again_and_says_so(make_run, capsys):
    first, second = make_run("baseline"), make_run("baseline")
    train_together([first])
    at = trained_at(first)
    capsys.readouterr()
    train_together([second], False)
    assert trained_at(second) == at
    assert (second.metrics, second.seconds) == (first.metrics, first.seconds)
    output = capsys.readouterr().out
    assert "used again" in output and "--fresh" in output


def test_a_training_of_other_settings_is_not_removed_unasked_and_what_differs_is_named(make_run):
    first, fixed = make_run("baseline", seed=1), make_run("other")
    train_together([first])
    at, run = trained_at(first), make_run("baseline", seed=2)
    for fresh, advice in ((None, "train it again$"), (False, "or --fresh to train everything")):
        with pytest.raises(TrainingError, match=rf"(?s)finished .*\n    seed: 1 -> 2\n.*{advice}"):
            train_together([fixed, run], fresh)
    assert trained_at(run) == at
    assert not fixed.folder.exists()  # it is said before anything is trained


def test_who_says_so_has_other_settings_trained_again_and_they_are_named(make_run, capsys):
    train_together([make_run("baseline", code="old")])
    run = make_run("baseline", code="new")
    at = trained_at(run)
    train_together([run], again=True)
    assert trained_at(run) != at
    assert "trained before with another code; training again" in capsys.readouterr().out
    assert len(read_metrics(run.folder)) == 2  # none are left of the first training


def test_settings_that_a_run_lets_differ_are_no_other_training_and_those_of_code_are_said(
    make_run, capsys
):
    first = make_run("baseline", code="old", config="train: {output_dir: a, seed: 1, file: x}")
    train_together([first])
    later = make_run("baseline", code="new", config="train: {output_dir: b, seed: 1, file: y}")
    later.may_differ = ("code", "config.train.file")
    train_together([later])
    assert trained_at(later) == trained_at(first)
    assert "with other code, used again" in capsys.readouterr().out
    other = make_run("baseline", code="old", config="train: {output_dir: a, seed: 2, file: x}")
    with pytest.raises(TrainingError, match="config.train.seed: 1 -> 2"):
        train_together([other])


def test_weights_of_a_training_whose_record_is_damaged_are_not_removed(make_run):
    run = make_run("baseline")
    train_together([run])
    (run.folder / "training.json").write_text("{")
    with pytest.raises(TrainingError, match="training.json cannot be read"):
        train_together([make_run("baseline")])
    assert (run.folder / "model_final.pth").is_file()


def test_checkpoints_of_a_training_whose_last_weights_are_gone_are_not_removed(make_run):
    run = make_run("baseline")
    train_together([run])
    (run.folder / "model_final.pth").rename(run.folder / "model_0000019.pth")
    with pytest.raises(TrainingError, match="but model_final.pth is not there"):
        train_together([make_run("baseline")])
    assert (run.folder / "model_0000019.pth").is_file()


def test_a_fresh_command_trains_again(make_run):
    run = make_run("baseline")
    train_together([run])
    at = trained_at(run)
    train_together([run], fresh=True)
    assert trained_at(run) != at


def test_a_training_that_did_not_finish_is_repeated(make_run):
    with pytest.raises(TrainingError):
        train_together([make_run("baseline", "fails")])
    run = make_run("baseline")
    train_together([run])
    assert run.metrics["bbox/AP"] == 25.0


def test_a_folder_of_something_else_is_not_removed(make_run):
    run = make_run("baseline")
    run.folder.mkdir()
    (run.folder / "thesis.tex").write_text("precious")
    with pytest.raises(TrainingError, match="holds something else"):
        train_together([run])
    assert (run.folder / "thesis.tex").exists()


def test_a_line_of_metrics_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 19}\n{"iteration": 39, "los')
    assert read_metrics(tmp_path) == [{"iteration": 19}]
    assert read_metrics(tmp_path / "nothing") == []


def test_what_no_run_writes_into_its_metrics_is_left_out_and_said_once(tmp_path, caplog):
    lines = [
        b'{"iteration": 19, "lr": 0.5, "AP": NaN, "loss": "x", "time": {}, "big": 1%s}'
        % (b"0" * 400),
        b'{"iteration": "39"}',
        b"{\xff",
        b"[" * 100_000,
        b'{"iteration": 59, "lr": null, "ok": true}',
    ]
    (tmp_path / "metrics.json").write_bytes(b"\n".join(lines) + b"\n")
    expected = [{"iteration": 19, "lr": 0.5, "AP": None}, {"iteration": 59, "lr": None}]
    assert read_metrics(tmp_path) == read_metrics(tmp_path) == expected
    assert caplog.text.count("metrics.json is damaged: 5 of its 5 lines are not as written") == 1


def test_a_training_that_was_stopped_goes_on(make_run, capsys):
    first = make_run("baseline", "fails")
    with pytest.raises(TrainingError):
        train_together([first])
    (first.folder / "last_checkpoint").write_text("model_0000019.pth")
    second = make_run("baseline")
    train_together([second])
    assert "going on with" in capsys.readouterr().out
    assert second.log.read_text().endswith("went wrong\nthis is works, resumed\n")


def test_a_training_of_other_settings_does_not_go_on_and_its_checkpoints_stay(make_run):
    first = make_run("baseline", "fails", code="old")
    with pytest.raises(TrainingError):
        train_together([first])
    (first.folder / "last_checkpoint").write_text("model_0000019.pth")
    (first.folder / "model_0000019.pth").touch()
    with pytest.raises(TrainingError, match=r"(?s)was begun with .*another code"):
        train_together([make_run("baseline", code="new")])
    assert (first.folder / "model_0000019.pth").exists()


def test_a_training_that_failed_before_it_saved_anything_is_begun_anew_by_other_settings(make_run):
    with pytest.raises(TrainingError):
        train_together([make_run("baseline", "fails", code="old")])
    run = make_run("baseline", code="new")
    train_together([run])
    assert run.metrics["bbox/AP"] == 25.0


def test_iterations_that_were_done_twice_are_counted_once(tmp_path):
    lines = [
        '{"iteration": 19, "lr": 1}',
        '{"iteration": 39, "lr": 1}',
        '{"iteration": 29, "lr": 2}',
        '{"iteration": 25, "bbox/AP": 1.0}',
    ]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert [line["iteration"] for line in read_metrics(tmp_path)] == [19, 25, 29]


PERIODS = {"total_loss": 1, "bbox/AP": 25, "diag/share": 7, "diag/balance_share": 10, "maps": 49}


@pytest.mark.parametrize("stops", [[100], [55, 100], [85, 65, 100], [25, 59, 120], [99, 75, 61]])
def test_all_entries_that_detectron2_writes_are_read_whatever_their_period(tmp_path, stops):
    """A run writes every 20 iterations, stops after so many, and goes on with a multiple of 30."""
    expected: dict[tuple[str, int], tuple[int, float]] = {}
    begin = 0
    for session, stop in enumerate(stops):
        writer = JSONWriter(str(tmp_path / "metrics.json"))
        with EventStorage(begin) as storage:
            for iteration in range(begin, stop):
                for name, period in PERIODS.items():
                    if (iteration + 1) % period == 0:
                        storage.put_scalar(name, session + iteration, smoothing_hint=False)
                if (iteration + 1) % 20 == 0:
                    writer.write()
                    latest = storage.latest().items()
                    written = {(name, of): (session, value) for name, (value, of) in latest}
                    first = min(of for _, of in written)
                    kept = {k: v for k, v in expected.items() if v[0] == session or k[1] < first}
                    expected = {**kept, **written}
                storage.step()
        writer.close()
        begin = stop // 30 * 30
    read = read_metrics(tmp_path)
    assert [line["iteration"] for line in read] == sorted(line["iteration"] for line in read)
    found = {
        (name, line["iteration"]): value
        for line in read
        for name, value in line.items()
        if name != "iteration"
    }
    assert found == {key: value for key, (_, value) in expected.items()}


def test_a_training_that_was_told_to_stop_stops_the_other_and_the_command(make_run):
    hanging, told = make_run("baseline", "hangs"), make_run("distilled", "is told to stop")
    with pytest.raises(Preempted, match="the same command goes on") as error:
        train_together([hanging, told])
    assert error.value.code == 75
    assert not (hanging.folder / "model_final.pth").exists()


def test_a_signal_to_the_command_is_handed_on(make_run):
    hanging = make_run("baseline", "hangs")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    before, start = signal.getsignal(signal.SIGUSR1), time.monotonic()
    with pytest.raises(Preempted, match="baseline stopped by SIGUSR1"):
        train_together([hanging])
    assert time.monotonic() - start < 20
    assert signal.getsignal(signal.SIGUSR1) == before
