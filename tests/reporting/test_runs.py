"""Folders of runs, and which of them are one row."""

import json
import math
import os

import pytest

from dense_kd.reporting import ReportError
from dense_kd.reporting.groups import group_runs
from dense_kd.reporting.runs import mean_of, read_runs, spread_of
from helpers.run_folders import config_of, records, write_run


def rows(*folders, **options):
    return group_runs(read_runs([str(folder) for folder in folders]), **options)


def test_a_folder_tells_iterations_minutes_and_the_last_metrics(tmp_path):
    write_run(tmp_path / "a", lines=[*records(40, ap=3.0), *records(60, ap=21.0)[2:]])
    (run,) = read_runs([str(tmp_path / "a")])
    assert (run.name, run.iterations, run.planned, run.finished) == ("a", 60, 40, True)
    assert run.minutes == pytest.approx(60 * 0.5 / 60)
    assert (run.metrics["AP"], run.metrics["APl"]) == (21.0, None)
    assert run.state == "" and run.seed == "1"


def test_a_killed_run_says_how_far_it_came_and_has_its_last_weights(tmp_path):
    folder = write_run(tmp_path / "a", lines=records(20, ap=None), finished=False)
    (folder / "model_0000019.pth").write_bytes(b"")
    (folder / "last_checkpoint").write_text("../a/model_0000019.pth")
    (run,) = read_runs([str(folder)])
    assert run.state == "unfinished, 20 of 40 iterations"
    assert run.metrics == {} and run.weights == folder / "model_0000019.pth"


@pytest.mark.parametrize(
    "written, state",
    [
        ("${length}", "unfinished, 20 of 40 iterations"),
        ("${train.eval_period}", "unfinished, 20 of 40 iterations"),
        ("${nowhere}", "unfinished, 20 iterations"),
    ],
)
def test_a_number_of_iterations_may_refer_to_another_entry(tmp_path, written, state):
    train = {"seed": "${train.checkpointer.period}", "checkpointer": {"period": 7}}
    config = config_of(length=40, train={**train, "max_iter": written, "eval_period": 40})
    folder = write_run(tmp_path / "a", config, records(20, ap=None), finished=False)
    (run,) = read_runs([str(folder)])
    assert (run.state, run.seed) == (state, "7")


def test_the_detections_are_those_that_were_written_last(tmp_path):
    folder = write_run(tmp_path / "a", detections=[])
    (run,) = read_runs([str(folder)])
    assert run.detections == folder / "coco_instances_results.json"
    again = folder / "inference" / "coco_instances_results.json"
    again.parent.mkdir()
    again.write_text("[]")
    os.utime(again, (2e9, 2e9))
    assert run.detections == again


def test_lines_of_metrics_that_are_none_are_left_out(tmp_path):
    folder = write_run(tmp_path / "a")
    with open(folder / "metrics.json", "a") as file:
        file.write('3\n"text"\n{"iteration"')
    (run,) = read_runs([str(folder)])
    assert len(run.records) == 3


@pytest.mark.parametrize(
    "made, said",
    [
        ({}, "is not there; expected the folder of a run"),
        ({"a": None}, "is a file; expected the folder of a run"),
        ({"a/metrics.json": "{}"}, "is no run: it has no config.yaml; expected a folder that"),
        ({"a/config.yaml": "{}"}, "has no metrics in metrics.json: the run has not logged"),
        ({"a/config.yaml": "{}", "a/metrics.json": ""}, "has no metrics in metrics.json"),
        ({"a/distill.json": "{}"}, "distill.json cannot be read"),
        ({"a/distill.json": '{"data": {}}'}, "a distillation in which nothing was trained yet"),
    ],
)
def test_what_is_no_run_is_refused_with_what_was_expected(tmp_path, made, said):
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text or "")
    with pytest.raises(ReportError, match=said):
        read_runs([str(tmp_path / "a")])


def test_a_run_is_given_once(tmp_path):
    folder = write_run(tmp_path / "a")
    with pytest.raises(ReportError, match="given twice"):
        read_runs([str(folder), f"again={folder}/../a"])


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"alone_{seed}", config_of(seed), records(ap=20.0 + seed))
    write_run(tmp_path / "faster", config_of(1, optimizer={"lr": 0.02}))
    alone, faster = rows(tmp_path / "alone_1", tmp_path / "faster", tmp_path / "alone_2")
    assert (alone.title, faster.title) == ("alone", "faster")
    assert [run.seed for run in alone.runs] == ["1", "2"]
    assert alone.mean("AP") == 21.5 and alone.mean("APl") is None
    assert alone.spread("AP") == pytest.approx(math.sqrt(0.5))  # of 21 and 22, n - 1
    assert faster.spread("AP") is None


def test_an_unfinished_seed_does_not_count_unless_all_are(tmp_path):
    write_run(tmp_path / "a1", config_of(1), records(ap=20.0))
    write_run(tmp_path / "a2", config_of(2), records(20, ap=2.0), finished=False)
    write_run(tmp_path / "b", config_of(1, optimizer={}), records(20, ap=3.0), finished=False)
    whole, killed = rows(tmp_path / "a1", tmp_path / "a2", tmp_path / "b")
    assert (whole.mean("AP"), whole.spread("AP"), len(whole.runs)) == (20.0, None, 2)
    assert killed.mean("AP") == 3.0


def test_the_student_of_a_distillation_is_compared_with_a_bare_one(tmp_path):
    bare = config_of()
    model = {"_target_": "dense_kd.Distiller", "student": bare["model"], "methods": {"kd": 1}}
    write_run(tmp_path / "a", bare)
    write_run(tmp_path / "b", config_of(model=model, student={"unread": 1}))
    first, second = rows(tmp_path / "a", tmp_path / "b")
    assert second.config["model"] == first.config["model"]
    assert second.config["distillation"]["methods"] == {"kd": 1}
    assert "student" not in second.config


def test_two_seeds_of_a_distillation_are_a_row_for_each_of_its_trainings(tmp_path):
    for seed in (1, 2):
        folder = tmp_path / f"photos-seed{seed}"
        for stage in ("teacher", "distilled"):
            model = {"stage": stage, "teacher": f"{folder}/teacher/model_final.pth"}
            write_run(folder / stage, config_of(seed, model=model))
        (folder / "distill.json").write_text(json.dumps({"data": {"data": "photos"}}))
    found = rows(tmp_path / "photos-seed1", tmp_path / "photos-seed2")
    assert [(row.title, len(row.runs)) for row in found] == [
        ("photos/teacher", 2),
        ("photos/distilled", 2),
    ]
    assert [row.title for row in rows(tmp_path / "photos-seed1")] == ["teacher", "distilled"]


def test_titles_are_given_before_a_folder_or_for_a_row_and_differ(tmp_path):
    for name, rate in (("a", 1), ("b=c", 2), ("d", 3)):
        write_run(tmp_path / name, config_of(optimizer={"lr": rate}))
    folders = [f"mine={tmp_path / 'a'}", tmp_path / "b=c", tmp_path / "d"]
    assert [row.title for row in rows(*folders)] == ["mine", "b=c", "d"]
    titles = {"b=c": "mine", "d": "x"}
    assert [row.title for row in rows(*folders, titles=titles)] == ["mine", "mine (2)", "x"]
    with pytest.raises(ReportError, match="no row 'e'; the rows are 'mine', 'b=c', 'd'"):
        rows(*folders, titles={"e": "f"})


def test_mean_and_spread_of_undefined_values_are_undefined():
    assert (mean_of([]), mean_of([1.0, None]), mean_of([1.0, 3.0])) == (None, None, 2.0)
    assert (spread_of([1.0]), spread_of([1.0, None])) == (None, None)
    assert spread_of([1.0, 3.0]) == pytest.approx(math.sqrt(2))
