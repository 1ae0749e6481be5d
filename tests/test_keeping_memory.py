"""Memory that tensors on the CPU have left is taken again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping

import pytest

from dense_kd import allocation
from dense_kd.cli import run_command
from dense_kd.engine.command import run_process
from dense_kd.study import worker

# The module alone: torch's import would take longer than this.
SCRIPT = """
import json, resource, runpy, sys
keep = runpy.run_path(sys.argv[1])["keep_freed_memory"]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        first = bytearray(20 << 20)
        second = bytearray(40 << 20)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([faults(), keep(), faults()]))
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def seen(variables: Mapping[str, str]) -> list[int]:
    """Pages that were cleared for the same work before and after, and what was said between."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", SCRIPT, allocation.__file__]
    return json.loads(subprocess.check_output(command, env={**plain, **variables}))


@glibc
def test_pages_are_cleared_once_and_not_at_every_step():
    before, said, after = seen({})
    assert said is True
    assert before > 100_000  # 60 MiB twenty times
    assert after < before / 10


@glibc
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_is_set_by_variables_stays(name: str):
    before, said, after = seen({name: "131072"})
    assert said is False
    assert after == pytest.approx(before, rel=0.01)


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocation.keep_freed_memory() is False


class Asked(Exception):
    pass


@pytest.mark.parametrize(
    "begin",
    [
        lambda folder: run_command("list", ["detectors"]),
        lambda folder: run_process(None),  # type: ignore[arg-type]
        lambda folder: worker.main([str(folder), str(folder)]),
    ],
    ids=["a command", "one of several processes", "a cell of a study"],
)
def test_each_process_of_ours_asks_for_it_first(monkeypatch: pytest.MonkeyPatch, tmp_path, begin):
    def ask() -> None:
        raise Asked

    monkeypatch.setattr(allocation, "keep_freed_memory", ask)
    with pytest.raises(Asked):
        begin(tmp_path)
