"""What is measured, the file that holds it, and the tables that are made of it."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dense_kd.benchmark.errors import BenchmarkError
from dense_kd.benchmark.measuring import Settings, Wanted, benchmark
from dense_kd.benchmark.schema import problems, read_results
from dense_kd.benchmark.text import as_text
from helpers.configs import files_loaded_once

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that is run
import performance_pages  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

CONFIG = "quickstart/distill"
BF16 = "model.teacher.precision=bfloat16"
PARTS = ["student", "teacher", "step", "evaluation", "bckd forward", "bckd backward"]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """Of a distillation, and of the same with a teacher in bfloat16."""
    wanted = [Wanted(CONFIG), Wanted(CONFIG, (BF16,))]
    settings = Settings(device="cpu", threads=1, size=(64, 96), boxes=3, rounds=2, warmup=0)
    with torch.random.fork_rng(devices=[]), files_loaded_once():
        return benchmark(wanted, settings)


@pytest.mark.slow
def test_every_part_of_every_config_is_measured(results):
    assert [list(run["parts"]) for run in results["runs"]] == [PARTS, PARTS]
    for run in results["runs"]:
        for part in run["parts"].values():
            assert len(part["seconds"]["values"]) == 2 and min(part["seconds"]["values"]) > 0
            assert part["memory"] > 0
    assert results["batch"] == {"images": 1, "height": 64, "width": 96, "boxes": 3}
    assert (results["threads"], results["rounds"], results["device"]) == (1, 2, "cpu")


@pytest.mark.slow
def test_ratios_are_those_of_the_parts_round_by_round(results):
    for run in results["runs"]:
        seconds = {name: part["seconds"]["values"] for name, part in run["parts"].items()}
        rounds = [*zip(seconds["step"], seconds["student"], seconds["teacher"])]
        assert run["overhead"]["values"] == [step / (s + t) for step, s, t in rounds]
        assert run["price"]["values"] == [step / s for step, s, _ in rounds]
        assert run["price"]["median"] == pytest.approx(sum(run["price"]["values"]) / 2)
        assert run["price"]["low"] <= run["price"]["median"] <= run["price"]["high"]


@pytest.mark.slow
def test_the_ratio_of_memory_is_that_of_the_parts_with_the_weights(results):
    for run in results["runs"]:
        weights = run["weights"]["student"] + run["weights"]["teacher"]
        student, step = (run["parts"][name]["memory"] for name in ("student", "step"))
        assert run["memory"] == (weights + step) / (weights + student + run["teacher_pass"])
        assert 0 < run["teacher_pass"] < run["parts"]["step"]["memory"]


@pytest.mark.slow
def test_a_step_is_the_students_and_the_teachers_pass_in_flops_and_kernels(results):
    for run in results["runs"]:
        flops = {name: part["flops"] for name, part in run["parts"].items()}
        assert flops["step"] == flops["student"] + flops["teacher"] > flops["teacher"] > 0
        assert 0 < flops["evaluation"] < flops["student"] / 2
        counts = run["kernels"]
        passes = counts["student"], counts["teacher"]
        added = {key: n - sum(each[key] for each in passes) for key, n in counts["step"].items()}
        # It also looks at the teacher's numbers, and puts together once what both losses read.
        assert added["forward"] > counts["bckd"]["forward"]
        for part in ("forward", "backward"):
            assert 0 < added[part] < 1.2 * counts["bckd"][part]
        assert added["stops"] == counts["bckd"]["stops"]
        assert counts["teacher"]["backward"] == counts["teacher"]["stops"] == 0
    ours, low = (run["kernels"]["teacher"]["forward"] for run in results["runs"])
    assert low > ours  # it casts


@pytest.mark.slow
def test_what_is_measured_is_what_a_file_holds(results, tmp_path):
    assert problems(results) == []
    (tmp_path / "cost.json").write_text(json.dumps(results))
    assert read_results(tmp_path / "cost.json") == json.loads(json.dumps(results))
    assert len(results["commit"] or "x" * 40) == 40 and results["machine"]["cores"] > 0


def spoil(results, path, value):
    spoilt = copy.deepcopy(results)
    *parents, last = path
    place = spoilt
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return spoilt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["threads"], None, "threads is missing"),
        (["threads"], True, "threads is True, expected int"),
        (["format"], 2, "format is 2, expected 1"),
        (["load_before"], "high", "load_before is 'high', expected a list"),
        (["more"], 1, "more is no entry; there is format,"),
        (
            ["runs", 1, "parts", "step", "seconds", "values", 0],
            "1",
            "runs[1].parts.step.seconds.",
        ),
        (["runs", 0, "kernels", "bckd"], 3, "runs[0].kernels.bckd is 3, expected an object"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_with_the_place(results, path, value, said):
    (found,) = problems(spoil(results, path, value))
    assert found.startswith(said)


@pytest.mark.slow
def test_without_a_teacher_nothing_is_counted_for_it(tmp_path):
    settings = Settings(device="cpu", threads=1, size=(64, 96), boxes=3, rounds=2, warmup=0)
    with torch.random.fork_rng(devices=[]), files_loaded_once():
        found = benchmark([Wanted("quickstart/dsi_alone")], settings)
    assert problems(found) == []
    (run,) = found["runs"]
    assert run["teacher"] is None and run["teacher_pass"] == run["weights"]["teacher"] == 0
    assert "teacher" not in run["parts"] and "teacher" not in run["kernels"]
    assert run["overhead"] == run["price"]
    weights, parts = run["weights"]["student"], run["parts"]
    student, step = (parts[name]["memory"] for name in ("student", "step"))
    assert run["memory"] == (weights + step) / (weights + student)
    flops = {name: part["flops"] for name, part in parts.items()}
    own = flops["dsi forward"] + flops["dsi backward"]
    assert flops["step"] == flops["student"] + own > flops["student"]
    text = as_text(found)
    assert re.search(r"quickstart/dsi_alone: FCOS \([^)]*\) with DSI\n", text)
    assert re.search(r"^added ", text, re.MULTILINE) and "\nteacher " not in text


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BenchmarkError, match="broken.json is no result of `dense-kd benchmark`"):
        read_results(tmp_path / "broken.json")


@pytest.mark.slow
def test_tables_have_a_row_for_each_part_and_a_column_for_what_was_measured(results):
    text = as_text(results)
    run = results["runs"][0]
    counts = run["kernels"]["student"]
    kernels = f"{counts['forward']} + {counts['backward']}"
    row = rf"^student +\S+ ms +\S+ to \S+ +\S+ MB +\S+ +{re.escape(kernels)} +{counts['stops']}$"
    assert len(re.findall(row, text, re.MULTILINE)) == 2
    assert re.search(r"^quickstart/distill +(\d\.\d{3} +){2}\S+ to \S+ +\d", text, re.MULTILINE)
    assert "\nquickstart/distill model.teacher.precision=bfloat16: FCOS (" in text
    assert "\nbatch: 1 x 64 x 96, drawn; boxes an image: 3; rounds: 2, after 0 to warm up\n" in text
    less = copy.deepcopy(results)
    less["rounds"], less["memory_of"] = 0, None
    for run in less["runs"]:
        run["kernels"] = run["price"] = run["overhead"] = run["memory"] = None
        for part in run["parts"].values():
            part["seconds"] = part["memory"] = None
    assert "GFLOPs" in as_text(less)
    assert not re.search("kernels|time|overhead|added|rounds", as_text(less))


def test_every_kept_file_is_a_result_of_a_commit_in_a_folder_of_its_date():
    for file in sorted((ROOT / "benchmarks" / "results").glob("*/*.json")):
        if file.name in performance_pages.DATED_SCRIPTS:
            results = json.loads(file.read_text())
        else:
            results = read_results(file)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\w+", file.parent.name), file
        assert file.parent.name[:10] == results["date"][:10], file
        assert results["commit"] and not results["changed"], file


def test_the_page_is_what_the_kept_files_give():
    assert performance_pages.main(["--check"]) == 0


@pytest.mark.slow
def test_pages_are_written_with_the_newest_folder_first(results, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{performance_pages.BEGIN}old\n{performance_pages.END}below\n")
    for name in ("2026-01-02_x", "2026-03-04_x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gfl.json").write_text(json.dumps(results))
    monkeypatch.setattr(performance_pages, "DOCUMENT", page)
    monkeypatch.setattr(performance_pages, "RESULTS", tmp_path)
    assert (
        performance_pages.main(["--check"]) == 1 and "make bench-pages" in capsys.readouterr().out
    )
    assert performance_pages.main([]) == performance_pages.main(["--check"]) == 0
    text = page.read_text()
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert headings == ["2026-03-04_x/gfl.json", "2026-01-02_x/gfl.json"]
    assert re.search(r"^\| student +\| +\S+ ms \|", text, re.MULTILINE) and "old" not in text
    assert text.startswith("above\n") and text.endswith("below\n")


def test_results_of_the_scripts_stand_first_each_with_its_command(tmp_path):
    versions = {"torch": "2.12", "detectron2": "0.5"}
    about = {"versions": versions, "commit": 40 * "a", "machine": {"cpu": "a CPU"}, "threads": 2}
    runs = {
        name: {
            "seconds": {"median": seconds},
            "difference": {"logits": 0.0125, "distributions": 0.5},
        }
        for name, seconds in (("float32", 0.5), ("int8", 1.0))
    }
    kept = {
        "one size": {
            memory: {"seconds": seconds, "pages": 123456.7, "peak_bytes": 1.5e9}
            for memory, seconds in (("given back", 0.8), ("kept", 0.6))
        }
    }
    contents = {
        "precision.json": {"versions": versions, "AP": {"student": {"2": 20.0, "1": 21.0}}},
        "allocation.json": {**about, "config": "some/config", "steps": 9, "runs": kept},
        "int8_teacher.json": {**about, "runs": runs},
        "scaling.json": {
            **about,
            "base": {"images": 1, "side": 320, "boxes": 7, "classes": 80},
        },
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    text = performance_pages.sections(tmp_path)
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == list(contents)
    assert re.search(r"^\| student +\| 20.5 +\| 21.0, 20.0 +\|$", text, re.MULTILINE)
    assert re.search(
        r"^\| one size +\| kept +\| 0.60 s +\| 0.75 +\| 123,457 +\| 1.50 GB +\|$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^\| int8 +\| 2.00 +\| 1.2 % +\| 50.0 % +\|$", text, re.MULTILINE)
    words = " ".join(text.split())
    for name in contents:
        assert f"`python benchmarks/{name[:-5]}.py`" in words
