"""``dense-kd`` itself: its help, its errors, and what every command owes."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from unittest import mock

import pytest

from dense_kd import cli
from dense_kd.errors import DenseKDError

LIGHT = """
import sys
from dense_kd.cli import main
helps = [[name, "--help"] for name in sys.argv[1:]]
for argv in [[], ["--help"], *helps, ["list", "configs", "quickstart"]]:
    try:
        assert main(argv) == 0, argv
    except SystemExit as end:
        assert end.code == 0, argv
    heavy = sorted({"torch", "detectron2", "numpy", "omegaconf"} & set(sys.modules))
    assert not heavy, (argv, heavy)
"""


def test_help_and_the_list_of_configs_are_there_without_importing_torch():
    command = [sys.executable, "-c", LIGHT, *cli.COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"dense-kd {name} " in done.stdout for name in cli.COMMANDS)


def test_the_help_says_of_each_command_what_it_does(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    for name in cli.COMMANDS:
        assert [name, cli.load_command(name).HELP] in lines


@pytest.mark.parametrize(
    "name, argv, place",
    [
        ("distill", ["photos", "--output=~/x"], "output"),
        ("distill", ["photos", "--output", "~/x"], "output"),
        ("export", ["~/run", "--to", "onnx"], "source"),
        ("report", ["a", "--output=~/x"], "output"),
        ("train", ["quickstart/teacher", "train.output_dir=~/x"], "opts"),
    ],
)
def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder_however_it_is_given(
    name, argv, place, monkeypatch
):
    monkeypatch.setenv("HOME", "/home/somebody")
    found = str(getattr(cli.parse_args(name, argv)[1], place))
    assert "/home/somebody/" in found and "~" not in found


def test_a_tilde_that_is_no_home_stays():
    args = cli.parse_args("export", ["a~b", "--to", "onnx", "--data-licence", "x ~ y=~ z"])[1]
    assert (args.source, args.data_licence) == ("a~b", "x ~ y=~ z")


@pytest.mark.parametrize(
    "argv, said",
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["xyz"], "there is no command 'xyz'; expected train"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["train", "--colour"], "dense-kd train: error: unrecognized arguments: --colour"),
    ],
)
def test_a_command_line_that_is_none_is_refused(argv, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


class Failing:
    HELP = "fails"
    EXAMPLES = ["dense-kd train"]

    def __init__(self, error):
        self.error = error

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, args: argparse.Namespace) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error, code, said",
    [
        (DenseKDError("no image in /data"), 1, "dense-kd: no image in /data\n"),
        (KeyboardInterrupt(), 130, "dense-kd: interrupted\n"),
    ],
)
def test_what_a_user_can_mend_is_said_without_a_traceback(error, code, said, capsys):
    with mock.patch.object(cli, "load_command", lambda name: Failing(error)):
        assert cli.main(["train"]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_the_package_keeps_its_traceback():
    with mock.patch.object(cli, "load_command", lambda name: Failing(ValueError("fault"))):
        with pytest.raises(ValueError, match="fault"):
            cli.main(["train"])


def test_the_errors_of_the_package_are_what_a_user_can_mend():
    from dense_kd import DistillationError
    from dense_kd.checkpoint import CheckpointError
    from dense_kd.data import DatasetError
    from dense_kd.demo.demo import DemoError
    from dense_kd.engine import RunError
    from dense_kd.engine.comparison import ComparisonError

    for error in (
        CheckpointError, ComparisonError, DatasetError, DemoError, DistillationError, RunError,
    ):  # fmt: skip
        assert issubclass(error, DenseKDError)


def test_a_disk_that_is_full_is_said_in_one_line(capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/out.json")
    with mock.patch.object(cli.load_command("list"), "run", side_effect=full):
        assert cli.main(["list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "/data/out.json: No space left on device. Make space there" in line
    fault = OSError(errno.EBADF, "of a program")
    with mock.patch.object(cli.load_command("list"), "run", side_effect=fault):
        with pytest.raises(OSError, match="of a program"):
            cli.main(["list"])


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ESTALE])
def test_a_path_that_is_not_what_was_expected_is_said_in_one_line(number, capsys):
    error = OSError(number, os.strerror(number), "/data/out.json")
    with mock.patch.object(cli.load_command("list"), "run", side_effect=error):
        assert cli.main(["list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"/data/out.json: {os.strerror(number)}. See what is at that path" in line
