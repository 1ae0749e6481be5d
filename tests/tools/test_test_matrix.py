"""Tests of tools/test_matrix.py. None of them uses the network or pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that is run
import matrix_results as results  # noqa: E402
import test_matrix as matrix  # noqa: E402

sys.path.remove(str(ROOT / "tools"))

HEADER = 2  # lines above the first row of a table


def result(**changes):
    return {
        "date": "2026-11-28",
        "commit": "abc1234",
        "python": "3.9.18",
        "torch": "2.1.0",
        "torchvision": "0.16.0",
        "numpy": "1.26.4",
        "detectron2": "0.5",
        "passed": 3700,
        "failed": 1,
        "skipped": 65,
        **changes,
    }


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A page with an empty table, and no file of results."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results" / "matrix.json")
    monkeypatch.setattr(results, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(matrix, "WORK_DIR", tmp_path / "work")
    results.PAGE.write_text(f"before\n{results.BEGIN}{results.END}after\n")
    return tmp_path


def fake_python(folder: Path, name: str, version: str) -> str:
    """A program that says it is a Python of ``version``, whatever it is asked to run."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return str(path)


def test_the_table_of_the_page_is_that_of_the_stored_results():
    page = (ROOT / "docs" / "developing.md").read_text()
    assert results.insert_table(page, results.table(results.read_results())) == page


def test_the_oldest_cell_is_what_setup_py_allows_and_the_pinned_one_what_make_test_installs():
    setup, makefile = (ROOT / "setup.py").read_text(), (ROOT / "Makefile").read_text()
    oldest = results.OLDEST
    assert f'python_requires=">={oldest.python}"' in setup
    for pin in oldest.pins[:2]:
        name, release = pin.split("==")
        assert f'"{name}>={release.removesuffix(".0")}"' in setup
    assert re.search(r"^TORCH := (.*)$", makefile, re.MULTILINE)[1].split() == results.PINNED.pins


def test_every_environment_runs_with_both_detectron2():
    kinds = {(cell.versions.name, cell.main) for cell in results.CELLS.values()}
    names = {versions for versions, _ in kinds}
    assert kinds == {(name, main) for name in names for main in (False, True)} and len(names) == 3


def test_a_row_shows_the_versions_that_were_measured_not_those_that_are_pinned():
    text = results.table({"pinned-main": result(torch="1.9.9", detectron2_commit="02b5c4e")})
    rows = text.splitlines()[HEADER:]
    assert [row.split(" | ")[0] for row in rows] == [f"| `{name}`" for name in results.CELLS]
    assert rows[4] == (
        "| `pinned-main` | 3.9.18 | 1.9.9 | 0.16.0 | 1.26.4 | main (02b5c4e) "
        "| 3,700 passed, 1 failed, 65 skipped | 2026-11-28 (abc1234) |"
    )
    assert "| not run yet |" in rows[0] and rows[0].count("|") == rows[4].count("|")


def test_a_cell_that_broke_off_says_so_in_its_row():
    broken = {"date": "2026-11-28", "commit": "abc1234", "torch": "2.1.0", "error": "it broke"}
    row = results.table({"oldest": broken}).splitlines()[HEADER]
    assert "| it broke |" in row and "passed" not in row


def test_a_new_result_replaces_that_of_its_cell_alone():
    old = {"newest": result(), "oldest": result(), "a cell of before": result()}
    merged = results.merge(old, {"oldest": result(passed=1)})
    assert list(merged) == ["oldest", "newest"]
    assert merged["oldest"]["passed"] == 1 and merged["newest"] == result()


@pytest.mark.parametrize("text", ["", "{0}", "{1}{0}", "{0}{0}{1}", "{0}{1}{1}"])
def test_a_readme_without_its_two_markers_is_refused_and_not_written(files, text):
    text = text.format(results.BEGIN, results.END)
    results.PAGE.write_text(text)
    with pytest.raises(ValueError, match="expected one line"):
        results.store("oldest", result())
    assert results.PAGE.read_text() == text and not results.RESULTS.exists()


def test_results_are_stored_cell_by_cell_and_the_rest_of_the_readme_stays(files):
    results.store("newest", result(passed=7))
    results.store("oldest", result(passed=8))
    stored = json.loads(results.RESULTS.read_text())
    assert {name: one["passed"] for name, one in stored.items()} == {"oldest": 8, "newest": 7}
    page = results.PAGE.read_text()
    assert page == f"before\n{results.BEGIN}{results.table(stored)}{results.END}after\n"


def test_a_python_is_found_by_its_name_or_by_its_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHON39", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fake_python(tmp_path, "python3.9", "3.9")
    assert matrix.find_python("3.9") == "python3.9"
    other = fake_python(tmp_path, "mine", "3.9")
    monkeypatch.setenv("PYTHON39", other)
    assert matrix.find_python("3.9") == other


def test_a_python_that_is_not_there_fails_or_is_another_one_is_named(tmp_path, monkeypatch):
    missing = "Python 3.9 is not installed here .*; PYTHON39=path/to/python3.9 names one"
    for name in ("nowhere", fake_python(tmp_path, "other", "3.10")):
        monkeypatch.setenv("PYTHON39", name)
        with pytest.raises(matrix.NotHere, match=missing):
            matrix.find_python("3.9")
    (tmp_path / "shim").write_text("#!/bin/sh\necho 3.9\nexit 127\n")
    (tmp_path / "shim").chmod(0o755)
    monkeypatch.setenv("PYTHON39", str(tmp_path / "shim"))
    with pytest.raises(matrix.NotHere, match=missing):
        matrix.find_python("3.9")


def test_a_cell_whose_python_is_missing_is_named_and_keeps_its_result(files, monkeypatch, capsys):
    results.store("oldest", result())
    before = results.RESULTS.read_text(), results.PAGE.read_text()
    monkeypatch.setenv("PYTHON39", "nowhere")
    assert matrix.main(["--only", "oldest", "oldest-main", "--detectron2", str(checkout(files))])
    out = capsys.readouterr().out
    assert "oldest: not run. Python 3.9 is not installed here" in out
    assert "oldest-main: not run. Python 3.9 is not installed here" in out
    assert (results.RESULTS.read_text(), results.PAGE.read_text()) == before


def test_a_cell_of_main_without_a_folder_is_named(files, capsys):
    assert matrix.main(["--only", "newest-main"]) == 1
    assert "newest-main: not run. needs a checkout of detectron2 main" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only", "olddest"], "no cell is called olddest; there are oldest, pinned"),
        (["--detectron2", "nowhere"], "nowhere is no checkout"),
    ],
)
def test_a_wrong_argument_is_said_before_anything_runs(files, capsys, args, message):
    with pytest.raises(SystemExit):
        matrix.main(args)
    assert message in capsys.readouterr().err


def test_the_run_goes_on_after_a_cell_that_fails_and_ends_with_1(files, monkeypatch):
    outcomes = {name: result(failed=0) for name in results.CELLS}
    outcomes["oldest"] = result(failed=2)
    outcomes["pinned"] = {"date": "2026-11-28", "commit": "abc1234", "error": "it broke"}
    monkeypatch.setattr(matrix, "run_cell", lambda name, *args: outcomes[name])
    assert matrix.main([]) == 1
    assert json.loads(results.RESULTS.read_text()) == outcomes
    assert matrix.main(["--only", "newest"]) == 0


def test_a_selection_of_tests_writes_no_result(files, monkeypatch):
    monkeypatch.setattr(matrix, "run_cell", lambda *args: result(failed=0))
    assert matrix.main(["--only", "newest", "--tests", "tests/test_names.py"]) == 0
    assert not results.RESULTS.exists()


def checkout(folder: Path) -> Path:
    """A folder that looks like a checkout of detectron2."""
    for name in ("detectron2/model_zoo/__init__.py", "detectron2/__init__.py", "configs/a.py"):
        path = folder / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return folder / "checkout"


def test_a_copy_of_detectron2_has_its_configs_and_leaves_the_checkout_as_it_was(files):
    source = checkout(files)
    copied = matrix.copy_detectron2(source)
    assert (copied / "detectron2" / "model_zoo" / "configs" / "a.py").is_file()
    assert not (source / "detectron2" / "model_zoo" / "configs").exists()
    (source / "detectron2" / "__init__.py").write_text("changed")
    assert (matrix.copy_detectron2(source) / "detectron2/__init__.py").read_text() == "changed"


def test_a_folder_inside_another_checkout_has_no_commit_of_its_own(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for args in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *args], check=True)
    (tmp_path / "inner").mkdir()
    assert len(matrix.git(tmp_path, "rev-parse", "HEAD")) == 40
    assert matrix.git(tmp_path / "inner", "rev-parse", "HEAD") is None
    assert matrix.git(tmp_path / "nowhere", "rev-parse", "HEAD") is None


def test_an_environment_is_installed_again_when_what_it_is_made_from_changes(files, monkeypatch):
    runs = []
    monkeypatch.setattr(matrix, "run_logged", lambda command, *args: runs.append(command) or 0)
    versions = results.Versions("3.9", "1.2.3", "0.1.2")
    python = files / "work" / versions.name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(matrix, "ROOT", files)
    for name in matrix.SOURCES:
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text("")
    assert matrix.make_environment(versions) == str(python)
    assert runs == matrix.install_commands(str(python), versions)
    assert runs[1][-2:] == ["torch==1.2.3", "torchvision==0.1.2"]
    matrix.make_environment(versions)
    assert len(runs) == 4
    (files / "setup.py").write_text("changed")
    matrix.make_environment(versions)
    assert len(runs) == 8


def test_an_environment_that_cannot_be_filled_is_not_taken_for_ready(files, monkeypatch):
    monkeypatch.setattr(matrix, "run_logged", lambda command, log, env: log.write_text("no net"))
    monkeypatch.setattr(matrix, "ROOT", files)
    versions = results.Versions("3.9", "1.2.3", "0.1.2")
    folder = files / "work" / versions.name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    for name in matrix.SOURCES:
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text("")
    with pytest.raises(matrix.NotHere, match="pip .* install .*: no net"):
        matrix.make_environment(versions)
    assert not (folder / ".ready").exists()


TESTS = """\
import pytest

def test_passes(): pass
def test_fails(): assert False
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.fixture
def broken(): raise RuntimeError
def test_errs(broken): pass
"""


@pytest.mark.slow
def test_pytest_runs_and_is_counted_and_a_crash_is_an_error(files):
    (files / "work").mkdir()
    log = files / "work" / "cell.log"
    tests = files / "test_them.py"
    tests.write_text(TESTS)
    args = [str(tests), "--rootdir", str(files), "-c", os.devnull]
    counts = matrix.run_tests(sys.executable, log, dict(os.environ), args, jobs=1)
    assert counts == {"passed": 1, "failed": 2, "skipped": 1}
    tests.write_text("import os\nos._exit(3)\n")
    crashed = matrix.run_tests(sys.executable, log, dict(os.environ), args, jobs=1)
    assert crashed == {"error": "pytest ended with exit code 3 and no result"}
    assert "test_fails" in log.read_text()
