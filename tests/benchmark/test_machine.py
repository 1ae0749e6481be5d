"""Results say what they were measured on, so that kinds of processors are told apart."""

from __future__ import annotations

import pytest
import torch

from dense_kd import compat
from dense_kd.benchmark import machine


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\n",
         "AMD EPYC, family 25, model 1, AVX2"),
        ("cpu family : 6\nmodel : 143\nmodel name : Intel(R) Xeon(R)\nmodel name : Other\n",
         "Intel(R) Xeon(R), family 6, model 143, AVX2"),
        ("CPU implementer: 0x41\n", "arm, AVX2"),
        (None, "arm, AVX2"),
    ],
)  # fmt: skip
def test_processors_of_one_name_are_told_apart(tmp_path, monkeypatch, content, expected):
    file = tmp_path / "cpuinfo"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(machine, "_CPUS", file)
    monkeypatch.setattr(machine.platform, "processor", lambda: "arm")
    monkeypatch.setattr(compat, "cpu_instructions", lambda: ["AVX2"])
    assert machine.cpu_name() == expected


def test_an_older_torch_does_not_tell_its_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256", raising=False)
    assert compat.cpu_instructions() == ["SVE256"]
    monkeypatch.delattr(torch.backends.cpu, "get_cpu_capability")
    assert compat.cpu_instructions() == []
