"""The training script, run in this process or a fork of it, and what it leaves."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_coco
from detectron2.utils.logger import setup_logger

from dense_kd import get_config_file
from dense_kd.cli import parse_args
from dense_kd.cli.arguments import take_names
from dense_kd.data.shapes import register_all_shapes
from dense_kd.engine.command import run_process

from .two_processes import forks

TOOLS = Path(__file__).parents[2] / "tools"
SCRIPT = TOOLS / "lazyconfig_train_net.py"


def run(config: str, overrides: list[str], *flags: str) -> dict:
    """Run the script on a config of the project, or on a file of a test."""
    config = config if os.path.exists(config) else get_config_file(config)
    return run_process(parsed("--config-file", config, *flags, *overrides))


def parsed(*argv: str) -> argparse.Namespace:
    """The arguments of the script, as they are given to the package."""
    _, args = parse_args("train", argv)
    take_names(args, "config_file")
    return args


def run_in_fork(
    arguments: list[str],
    folder: Path,
    datasets: Path | None = None,
    *,
    script: Path = SCRIPT,
    launches_forks: bool = True,
) -> subprocess.CompletedProcess:
    """A script as a process of its own, except that nothing is imported anew.

    Args:
        arguments: its command line.
        folder: where stdout and stderr go, in files.
        datasets: $DETECTRON2_DATASETS, as if it had been set at the import.
        script: its file.
        launches_forks: what it launches in turn is forked, too.
    """
    logs = [folder / "stdout", folder / "stderr"]
    command = [str(script), *arguments]
    variables = {} if datasets is None else {"DETECTRON2_DATASETS": str(datasets)}
    with forks() if launches_forks else contextlib.nullcontext():
        process = fork_of(command, logs, variables)
        process.join(120)
    if process.exitcode is None:
        process.kill()
    return subprocess.CompletedProcess(
        command, process.exitcode, *(log.read_text() for log in logs)
    )


def fork_of(
    command: list[str], logs: list[Path], variables: Mapping[str, str]
) -> multiprocessing.Process:
    """A fork of this process that runs a script; stdout and stderr go to the two ``logs``."""
    importlib.import_module("torch.utils.cpp_extension")  # the environment is told; else in each
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_be_script, args=(command, logs, variables))
    process.start()
    return process


@contextlib.contextmanager
def trainings_are_forked() -> Iterator[None]:
    """Those that are started as processes of their own import nothing anew, nor load a config."""
    popen = subprocess.Popen

    def start(command, **options):
        forked = command[0] == sys.executable
        return _ForkedTraining(command, **options) if forked else popen(command, **options)

    with forks(), mock.patch.object(subprocess, "Popen", start):
        yield


class _ForkedTraining:
    """In place of a ``Popen`` of a training, by the script or by ``-m``."""

    def __init__(self, command, *, stdout, env, **_):
        self.process = fork_of(command[2:], [Path(stdout.name)] * 2, env)
        self.terminate, self.kill = self.process.terminate, self.process.kill
        self.wait = self.process.join

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode


def _be_script(command: list[str], logs: list[Path], variables: Mapping[str, str]) -> None:
    sys.modules["hotcoco"] = None  # see forks()
    os.environ.update(variables)
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)
    for name in ("fvcore", "detectron2", "dense_kd"):  # those of the test write elsewhere
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()
    if "DETECTRON2_DATASETS" in variables:
        DatasetCatalog.clear()
        MetadataCatalog.clear()
        register_all_coco(variables["DETECTRON2_DATASETS"])
        register_all_shapes()
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def assert_equal(a, b, place="") -> None:
    """Assert that two nested checkpoints are equal, bit for bit."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{place}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    else:
        assert a == b, place
