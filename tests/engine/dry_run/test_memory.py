"""The peak of memory is that of the device, and says what it is of."""

from __future__ import annotations

import os
import platform
from types import SimpleNamespace

import pytest
import torch

from dense_kd.engine.dry_run.memory import PeakMemory


def test_of_a_cpu_it_is_what_the_process_took_in_addition(tmp_path, monkeypatch):
    """Of an account that is written here: what this process really takes depends on other tests."""
    status, references = tmp_path / "status", tmp_path / "clear_refs"
    monkeypatch.setattr("dense_kd.engine.dry_run.memory._STATUS", str(status))
    monkeypatch.setattr("dense_kd.engine.dry_run.memory._REFERENCES", str(references))
    status.write_text("VmPeak: 9000 kB\nVmHWM: 5000 kB\nVmRSS: 1000 kB\n")
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    assert references.read_text() == "5"  # resets VmHWM
    status.write_text("VmPeak: 9000 kB\nVmHWM: 3000 kB\nVmRSS: 1200 kB\n")
    peak, what = memory.read()
    assert peak == 2000 * 1024
    assert what == "resident, above what the process had before the model was built"


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux's account of a process")
def test_linux_has_such_an_account():
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    peak, what = memory.read()
    assert peak is not None and what.startswith("resident")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator alone can be asked")
def test_what_was_freed_before_and_is_used_again_counts():
    earlier = [torch.ones(2**14) for _ in range(1600)]  # blocks of 64 kB, which are not mapped
    top = torch.ones(2**14)  # what is freed below it stays resident
    del earlier
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    model = [torch.ones(2**14) for _ in range(800)]
    peak, _ = memory.read()
    assert len(model) + len(top) > 0 and peak is not None and peak > 40 * 2**20


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
