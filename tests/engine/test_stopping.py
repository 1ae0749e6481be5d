"""Signals that ask for an end, to this process, its forks and the processes of a training."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from dense_kd.engine import stopping
from dense_kd.engine.stopping import SIGNALS, Stop, StopSignals, ends_as_preempted
from dense_kd.errors import EXIT_PREEMPTED, Preempted


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


def in_fork(work) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_kept_and_handlers_are_put_back(number):
    before = handlers()
    with Stop() as stop:
        assert stop.reason == "" and not stop.signalled
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as handed on by who started it
        assert stop.reason == number.name and stop.signalled
        assert handlers() != before
    assert handlers() == before


def test_time_that_is_over_is_a_reason_and_no_limit_is_none():
    assert Stop(1e-9).reason == "train.max_minutes=1e-09" and not Stop(1e-9).signalled
    assert Stop(0).reason == Stop(60).reason == ""


@pytest.mark.parametrize("end", [None, lambda: None])
def test_a_second_signal_ends_the_process(monkeypatch, end, tmp_path):
    monkeypatch.setattr(stopping, "SECOND_AFTER", 0.05)
    ready = tmp_path / "ready"

    def work() -> None:
        with StopSignals(lambda number: None, end=end):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            ready.touch()
            time.sleep(60)

    process = in_fork(work)
    while not ready.exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == -signal.SIGTERM


def test_loader_workers_live_on_until_their_own_parent_ends_them():
    with Stop():
        worker = in_fork(lambda: time.sleep(60))
        for number in SIGNALS:
            subprocess.run(["kill", f"-{number:d}", str(worker.pid)], check=True)
        worker.join(0.3)
        assert worker.is_alive()
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
    other = in_fork(lambda: time.sleep(60))  # a process that is not of a training
    other.terminate()
    other.join(20)
    assert other.exitcode == -signal.SIGTERM


def test_a_command_that_goes_on_ends_with_the_code_for_it(capsys):
    with pytest.raises(Preempted) as error, ends_as_preempted():
        os.kill(os.getpid(), signal.SIGINT)
    assert error.value.code == EXIT_PREEMPTED == 75
    assert "the same command goes on" in capsys.readouterr().err
