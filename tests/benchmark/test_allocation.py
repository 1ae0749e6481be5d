"""``benchmarks/allocation.py``: processes differ in what becomes of freed memory alone."""

from __future__ import annotations

import itertools
import json
import subprocess
from types import SimpleNamespace

import pytest

from helpers.scripts import load_benchmark

allocation = load_benchmark("allocation")

CASES = [(s, m) for s in (allocation.ONE_SIZE, allocation.VARIED)
         for m in (allocation.GIVEN_BACK, allocation.KEPT)]  # fmt: skip


def test_images_have_one_size_or_sizes_that_vary_and_are_the_same_in_each_process():
    for sizes, several in ((allocation.ONE_SIZE, False), (allocation.VARIED, True)):
        first, second = ([*itertools.islice(allocation.shapes(sizes), 9)] for _ in range(2))
        assert first == second and (len(set(first)) > 1) == several


def test_a_step_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(allocation, "CONFIG", "quickstart/distill")
    monkeypatch.setattr(allocation, "shapes", lambda sizes: itertools.repeat((1, (64, 64))))
    found = allocation.measure(allocation.ONE_SIZE, allocation.GIVEN_BACK, steps=1)
    assert found["seconds"] > 0 and found["pages"] >= 0
    assert found["peak_bytes"] > 100 << 20  # torch is loaded


def test_where_memory_cannot_be_kept_nothing_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(allocation, "keep_freed_memory", lambda: False)
    with pytest.raises(SystemExit, match="glibc"):
        allocation.measure(allocation.ONE_SIZE, allocation.KEPT, steps=1)


def test_each_is_a_process_in_which_nothing_is_set_otherwise(monkeypatch, tmp_path, capsys):
    ran, run_truly = [], subprocess.run

    def run(command, *, env=None, **options):
        if "--process" not in command:
            return run_truly(command, env=env, **options)
        ran.append((tuple(command[command.index("--process") + 1 :][:2]), env))
        seconds = 0.5 if allocation.KEPT in command else 1.0
        found = {"seconds": seconds, "pages": 3, "peak_bytes": 4}
        return SimpleNamespace(stdout=f"a warning\n{json.dumps(found)}\n".encode())

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setattr(subprocess, "run", run)
    file = tmp_path / "allocation.json"
    allocation.main(["--results", str(file)])
    assert [case for case, _ in ran] == CASES
    assert not any(name.startswith("MALLOC_") for _, env in ran for name in env)
    assert json.loads(file.read_text())["runs"][allocation.VARIED][allocation.KEPT]["pages"] == 3
    assert "one size: 0.50 of the time" in capsys.readouterr().out
