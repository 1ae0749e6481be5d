"""Files that are whole or absent, and what killed processes leave of them."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from torch import nn

from dense_kd.checkpoint import AtomicCheckpointer, replace_atomically, write_text, writing

HERE = writing._HOST


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_file_appears_only_after_it_is_on_disk(tmp_path, monkeypatch):
    target = tmp_path / "file"
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    replace_atomically(str(target), lambda file: file.write(b"x"))
    assert order == ["fsync", "replace", "fsync"]  # the last one of the folder
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize("name", ["caf\udce9", "ä漢\U0001f600", 'a\\"b\\\\\udcff\n'])
def test_a_text_has_names_that_are_no_unicode_as_json_and_python_read_them(tmp_path, name):
    write_text(tmp_path / "file", json.dumps(name, ensure_ascii=False))
    text = (tmp_path / "file").read_bytes().decode()
    assert json.loads(text) == ast.literal_eval(text) == name


@pytest.mark.slow
def test_what_a_killed_process_was_writing_is_gone_after_the_next_save(tmp_path):
    def write(file) -> None:
        file.write(b"half a check")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    killed = multiprocessing.get_context("fork").Process(
        target=replace_atomically, args=(str(tmp_path / "model_0000001.pth"), write)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith("model_0000001.pth.tmp")
    AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("model_0000003")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000003.pth"]


@pytest.mark.parametrize(
    "suffix, age, removed",
    [
        (lambda: f"{dead_process()}", 0, True),  # as version 0.1 named them
        (lambda: f"-{HERE}-{dead_process()}", 0, True),
        (lambda: f"-{HERE}-{os.getpid()}", 0, True),  # a number is given again, say in a container
        (lambda: f"-{HERE}-{os.getppid()}", 1e6, False),
        (lambda: "-another.machine-1", 60, False),
        (lambda: "-another.machine-1", 2 * 3600, True),
    ],
)
def test_only_files_of_dead_processes_are_removed(tmp_path, suffix, age, removed):
    left = tmp_path / f"model_0000001.pth.tmp{suffix()}"
    left.write_bytes(b"half a check")
    os.utime(left, (time.time() - age,) * 2)
    AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("model_0000003")
    assert left.exists() != removed


def test_files_of_others_are_left(tmp_path):
    others = ["notes.tmp1", "thesis.tex.tmp2", "model.pth.tmp", "model.pth.tmpfile"]
    for name in others:
        (tmp_path / name).write_text("precious")
    AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("model")
    replace_atomically(str(tmp_path / "summary.json"), lambda file: file.write(b"{}"))
    assert set(others) <= set(os.listdir(tmp_path))
