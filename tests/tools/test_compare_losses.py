"""Commits and configs whose losses are compared, in a small repository with its own git."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dense_kd.data import generate_shapes
from dense_kd.engine.comparison import comparing
from dense_kd.engine.comparison.pairs import DEFAULT_CONFIGS, Run

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "tools" / "compare_losses.py"
LOSSES = {"loss_box": 0.1, "total_loss": 0.1}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="compares commits of git"),
]


def load_script():
    spec = importlib.util.spec_from_file_location("compare_losses", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(repository: Path, *arguments: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(repository), *author, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit(repository: Path, subject: str) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", subject)


def write(path: Path, losses: dict[str, float]) -> None:
    """What :func:`told` takes for a config that is trained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(losses))


def told(run: Run, iterations: int, **options) -> list[dict[str, float]]:
    """In place of a training: the losses that the file of the config holds."""
    told.calls.append((run, iterations, options))
    return [json.loads(run.config.read_text())] * iterations


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """Its commits v1 and v2 move a config, change one, add one and drop one."""
    folder = (tmp_path / "repository").resolve()
    folder.mkdir()
    git(folder, "init", "-q")
    write(folder / DEFAULT_CONFIGS[0], LOSSES)
    write(folder / "configs/gone.py", {"loss_gone": 3.0})
    write(folder / "configs/old/place.py", {f"loss_{i}": float(i) for i in range(9)})
    commit(folder, "The first state")
    git(folder, "tag", "v1")
    git(folder, "mv", "configs/old", "configs/new")
    git(folder, "rm", "-q", "configs/gone.py")
    write(folder / DEFAULT_CONFIGS[1], LOSSES)
    write(folder / "configs/changed.py", {"loss_new": 7.0})
    commit(folder, "The second state")
    git(folder, "tag", "v2")
    monkeypatch.setattr(comparing, "losses_of", told)
    told.calls = []
    return folder


@pytest.fixture
def compare(repository, capsys):
    """A function that runs the tool and gives its exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = load_script().main([*arguments], repository)
        return code, *capsys.readouterr()

    return call


def test_what_both_commits_have_of_the_default_configs_is_compared(compare, repository):
    code, output, _ = compare("v1", "v2", "--equal", "--iterations", "2", "train.device=cpu")
    assert code == 0
    assert output.startswith("A: v1 (")
    assert "The first state)\nB: v2 (" in output
    assert output.count("equal, bit for bit, in 2 iterations") == 1
    (of_a, iterations, options), (of_b, *_) = told.calls
    assert of_a.name == f"{DEFAULT_CONFIGS[0]} at v1" and iterations == 2
    assert options == {"overrides": ["train.device=cpu"], "random_teacher": True}
    assert of_a.folder != of_b.folder and repository not in (of_a.folder, of_b.folder)


def test_worktrees_are_removed_whatever_happens(compare, repository, monkeypatch):
    compare("v1", "v2")
    folders = [run.folder for run, *_ in told.calls]

    def interrupted(run, *_, **__):
        assert run.folder.is_dir()
        folders.append(run.folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "losses_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare("v1", "v2")
    assert len(set(folders)) == 3 and not any(folder.exists() for folder in folders)
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_the_files_as_they_are_have_what_is_not_committed(compare, repository):
    write(repository / DEFAULT_CONFIGS[0], {**LOSSES, "loss_box": 0.2})
    code, output, _ = compare("HEAD", ".", "--equal")
    assert code == 1
    assert "B: . (the files as they are)" in output
    assert "0.1               0.2         0.1  <- the first difference" in output
    assert "Uncommitted" not in output
    assert [run.folder == repository for run, *_ in told.calls] == [False, True]
    code, output, _ = compare(".", "HEAD")
    assert code == 0 and output.count("<- the first difference") == 1  # and shows the others
    code, output, _ = compare("v1", "v2", "--equal")
    assert code == 0
    assert "Uncommitted changes are in neither; . is the files as they are" in output


def test_with_equal_nothing_is_trained_after_a_difference(compare, repository):
    for name in DEFAULT_CONFIGS[:2]:
        write(repository / name, {"loss_box": 0.2})
    assert compare("HEAD", ".")[0] == 0
    assert len(told.calls) == 4
    told.calls.clear()
    assert compare("HEAD", ".", "--equal")[0] == 1
    assert len(told.calls) == 2


@pytest.mark.parametrize("name", ["configs/old/place.py", "new/place.py"])
@pytest.mark.parametrize("ends", [("v1", "v2"), ("v2", "v1"), ("v1", "."), (".", "v1")])
def test_a_config_is_found_where_it_was_moved_to(compare, name, ends):
    code, output, _ = compare(*ends, "--equal", "--config-file", name)
    assert code == 0
    names = ["configs/old/place.py", "configs/new/place.py"]
    assert " -> ".join(names if ends[0] == "v1" else names[::-1]) in output
    assert told.calls[0][2]["random_teacher"] is False


def test_a_config_of_the_checkout_is_given_as_path_or_name_and_one_of_elsewhere_is_for_both(
    compare, repository, tmp_path, monkeypatch
):
    monkeypatch.chdir(repository / "configs" / "quickstart")
    elsewhere = tmp_path / "mine.py"
    write(elsewhere, LOSSES)
    given = [Path(DEFAULT_CONFIGS[0]).name, DEFAULT_CONFIGS[0], str(elsewhere)]
    options = [argument for name in given for argument in ("--config-file", name)]
    assert compare("v1", "v2", "--equal", "--random-teachers", *options)[0] == 0
    files = [run.config for run, *_ in told.calls]
    assert files[4:] == [elsewhere, elsewhere]
    assert [file.name for file in files[:4]] == ["student.py"] * 4
    assert {options["random_teacher"] for *_, options in told.calls} == {True}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["v1", "v3"], "v3: expected a commit of .*repository, . for its files as they are, or a"),
        (["v0", "no/such.py"], "v0 and no/such.py: expected a commit"),
        (["v1", "quickstart/gfl.py"], "quickstart/gfl.py is a config, v1 is not: give two"),
        (["quickstart/gfl.py", "v1"], "quickstart/gfl.py is a config, v1 is not: give two"),
        (["v1", "v2", "--config-file", "gone.py"], "v2 has no config gone.py"),
        (["v2", "v1", "--config-file", "gone.py"], "v2 has no config gone.py"),
        (["v1", "v2", "--config-file", "chaned.py"], r"v1 has no config chaned.py \(a config out"),
        (["v2", ".", "--config-file", "configs/chaned.py"], "did you mean configs/changed.py"),
        (["v1", "v2", "--iterations", "0"], "0 iterations: expected at least 1"),
        (
            ["quickstart/gfl.py", "quickstart/fkd.py", "--config-file", "x.py"],
            "--config-file is what two commits train; A and B are configs",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_with_exit_code_2(compare, arguments, said):
    code, _, errors = compare(*arguments, "--equal")
    assert code == 2
    assert re.search(said, errors), errors
    assert told.calls == []


def test_commits_without_a_config_in_common_are_an_error(compare, repository):
    git(repository, "rm", "-q", "-r", "configs/quickstart")
    commit(repository, "No configs")
    code, _, errors = compare("v1", "HEAD")
    assert code == 2 and "v1 and HEAD have none of configs/quickstart/student.py" in errors


def test_a_folder_without_git_has_no_commits(compare, repository):
    shutil.rmtree(repository / ".git")
    code, _, errors = compare("HEAD", ".")
    assert code == 2 and "HEAD: expected a commit" in errors


def test_without_git_there_is_nothing_to_compare(compare, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, _, errors = compare("v1", "v2")
    assert code == 2 and "comparing commits needs git" in errors


def test_variables_and_hooks_of_git_do_not_reach_the_comparison(compare, repository, monkeypatch):
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, os.devnull)
    assert compare("v1", "v2", "--equal")[0] == 0


def test_two_configs_are_trained_by_this_checkout(compare, repository, tmp_path):
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    write(a, LOSSES)
    write(b, {**LOSSES, "kd_x": 1.0})
    code, output, _ = compare(str(a), str(b), "--equal")
    assert code == 1
    assert f"A: {a}\nB: {b}" in output and "first in kd_x, which only B has" in output
    assert {run.folder for run, *_ in told.calls} == {repository}
    assert compare(str(a), str(a), "--equal")[0] == 0


_DOUBLED = """
from .detectors import GFL

_losses = GFL.losses
GFL.losses = lambda *args: {name: 2 * value for name, value in _losses(*args).items()}
"""


def test_each_commit_is_trained_by_its_own_package(tmp_path, monkeypatch, capsys):
    repository = tmp_path / "repository"
    for name in ("configs", "projects"):
        shutil.copytree(
            ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    git(repository, "init", "-q")
    commit(repository, "This checkout")
    with (repository / "projects" / "dense_kd" / "__init__.py").open("a") as file:
        file.write(_DOUBLED)
    generate_shapes(tmp_path / "shapes", "train", 2, image_size=(64, 64))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    config = ["--config-file", "quickstart/gfl.py", "dataloader.train.total_batch_size=2"]
    code = load_script().main(["HEAD", ".", "--equal", "--iterations", "1", *config], repository)
    output, errors = capsys.readouterr()
    assert code == 1, errors
    rows = [line.split()[:4] for line in output.splitlines() if line.strip().startswith("0 ")]
    assert [row[1] for row in rows] == ["loss_cls", "loss_box_reg", "loss_dfl", "total_loss"]
    for row in rows:
        assert float(row[3]) == pytest.approx(2 * float(row[2]), rel=1e-6)
