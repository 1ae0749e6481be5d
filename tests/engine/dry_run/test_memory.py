"""The peak of memory is that of the device, and says what it is of."""

from __future__ import annotations

import gc
import multiprocessing
import os
from types import SimpleNamespace

import pytest
import torch

from dense_kd.engine.dry_run.memory import PeakMemory

SIZE = 64 * 2**20


def measured(results: multiprocessing.SimpleQueue) -> None:
    gc.collect()
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    held = torch.ones(SIZE // 4)
    del held
    results.put(memory.read())


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux's account of a process")
def test_of_a_cpu_it_is_what_the_process_took_in_addition():
    """In a process of its own: here, what other tests have left may be given back meanwhile."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=measured, args=(results,))
    process.start()
    process.join(60)
    peak, what = results.get()
    assert 0.9 * SIZE < peak < 2 * SIZE and what.startswith("resident")


def test_where_the_system_does_not_tell_it_is_not_measured(monkeypatch):
    monkeypatch.setattr("dense_kd.engine.dry_run.memory._STATUS", "/none")
    monkeypatch.setattr("dense_kd.engine.dry_run.memory._REFERENCES", "/none/x")
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    assert memory.read() == (None, "not measured: this system has no /proc/self/status")
    peak, what = PeakMemory(torch.device("meta")).read()
    assert peak is None and "meta" in what


def test_of_a_gpu_it_is_what_torch_allocated(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**30)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=24 * 2**30)
    )
    memory = PeakMemory(torch.device("cuda:1"))
    memory.restart()
    assert memory.read() == (5 * 2**30, "allocated by torch, of 24 GB of cuda:1")
    assert asked == [torch.device("cuda:1")]
