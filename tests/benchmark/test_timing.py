"""Rounds of parts, and the peak of their memory on a GPU."""

from __future__ import annotations

import gc

import pytest
import torch

from dense_kd.benchmark import memory, timing
from dense_kd.benchmark.work import Part

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_rounds_go_there_and_back_and_those_that_warm_up_do_not_count():
    calls, told = [], []
    parts = {
        name: Part(lambda n=name: calls.append((n, gc.isenabled())), lambda n=name: calls.append(n))
        for name in "ab"
    }
    found = timing.timed_rounds(
        parts, CPU, rounds=2, warmup=1, progress=lambda *done: told.append(done)
    )
    there = ["a", ("a", False), "b", ("b", False)]
    assert calls == [*there, "b", ("b", False), "a", ("a", False), *there]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
    assert told == [(1, 3), (2, 3), (3, 3)] and gc.isenabled()


def test_only_the_work_is_timed_and_a_gpu_is_waited_for(monkeypatch):
    now, waits = [0.0], []

    def take(seconds):
        return lambda *_: now.__setitem__(0, now[0] + seconds)

    def synchronize(device):
        waits.append(now[0])
        now[0] += 0.5

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert timing.timed(Part(take(2.0), take(10.0)), CPU) == 2.0 and not waits
    assert timing.timed(Part(take(2.0), take(10.0)), CUDA) == 2.5
    assert waits == [22.0, 24.5]


@pytest.mark.parametrize(
    ("values", "low", "median", "high"),
    [([3.0], 3, 3, 3), ([4.0, 1.0, 2.0, 3.0, 5.0], 2, 3, 4)],
)
def test_a_spread_is_the_median_and_the_quartiles(values, low, median, high):
    assert timing.spread(values) == {"low": low, "median": median, "high": high, "values": values}


def test_memory_of_a_gpu_is_what_was_allocated_above_what_was_there(monkeypatch):
    state = {"now": 100, "peak": 900}
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: state.update(peak=state["now"])
    )
    assert memory.peak_memory(lambda: state.update(peak=130), CUDA) == 30


def test_memory_of_the_cpu_is_what_its_allocator_gave():
    assert 8000 <= memory.peak_memory(lambda: torch.ones(1000).add(1), CPU) < 8100
