"""Processes that torchrun or a scheduler starts, by its variables."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dense_kd.engine.ranks.launching import free_port
from helpers.script_runs import SCRIPT, fork_of, metrics

pytestmark = pytest.mark.slow


def test_they_train_together_and_the_others_end_when_one_is_killed(data, tmp_path):
    folder, processes, logs = tmp_path / "run", [], []
    command = [str(SCRIPT), "quickstart/student.py", *data, f"train.output_dir={folder}"]
    port = str(free_port())
    for rank in range(2):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        log = tmp_path / f"rank{rank}"
        log.touch()
        logs.append(log)
        more = ["train.max_iter=100000", "train.checkpointer.period=100000"]
        processes.append(fork_of([*command, *more], [log] * 2, variables))
    deadline = time.monotonic() + 60
    while not (folder / "metrics.json").exists() or not metrics(folder):
        assert time.monotonic() < deadline, [log.read_text()[-2000:] for log in logs]
        time.sleep(0.05)
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[0].join(30)
    said = logs[0].read_text()
    assert processes[0].exitcode == 1, said[-3000:]
    assert "Process 0 of 2" in said
    assert f"process 1 of 2 ({os.uname().nodename}, process id {processes[1].pid}) is gone" in said
