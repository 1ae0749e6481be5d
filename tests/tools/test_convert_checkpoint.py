"""tools/convert_checkpoint.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import GOLDEN, tiny_fcos

from dense_kd.checkpoint import CheckpointError, convert_file, read_weights

SCRIPT = Path(__file__).parent.parent.parent / "tools" / "convert_checkpoint.py"
FCOS = GOLDEN / "det_fcos.pth"


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "name, head",
    [
        ("det_fcos", "FCOS"),
        ("det_fcos_tricks", "FCOS"),
        ("det_retinanet", "RetinaNet"),
        ("det_ddod", "DDOD"),
    ],
)
def test_what_it_writes_loads_like_the_original(tmp_path, name, head):
    source, target = GOLDEN / f"{name}.pth", tmp_path / "converted.pth"
    conversion = convert_file(str(source), str(target))
    original, converted = read_weights(str(source)), read_weights(str(target))
    assert list(torch.load(target, weights_only=True)) == ["model"]
    assert list(original) == list(converted)
    assert all(torch.equal(original[key], converted[key]) for key in original)
    assert conversion.detector == head
    assert os.listdir(tmp_path) == ["converted.pth"]


def test_it_prints_what_became_of_the_keys(tmp_path):
    done = run(FCOS, tmp_path / "out.pth")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[0].endswith("out.pth: FCOS")
    counts = {group: rows[group].split() for group in ("backbone", "fpn", "head", "all")}
    weights = read_weights(str(FCOS))
    elements = sum(value.numel() for value in weights.values())
    assert counts["all"] == [str(len(weights)), f"{elements:,}"]
    assert counts["fpn"][0] == "16" and counts["head"][0] == "35"
    assert sum(int(counts[group][0]) for group in ("backbone", "fpn", "head")) == len(weights)
    assert rows["dropped:"] == "num_batches_tracked x 20"


def test_a_distillers_student_and_teacher_are_taken_out(tmp_path):
    state = torch.load(FCOS, weights_only=True)["state_dict"]
    both = {f"student.{key}": value for key, value in state.items()}
    both |= {f"teacher.{key}": value + 1 for key, value in state.items()}
    both["distill_losses.0.align.weight"] = torch.zeros(1)
    torch.save({"state_dict": both}, tmp_path / "distiller.pth")
    weights = {}
    for part in ("student", "teacher"):
        target = tmp_path / f"{part}.pth"
        convert_file(str(tmp_path / "distiller.pth"), str(target), part)
        weights[part] = read_weights(str(target))
    original = read_weights(str(FCOS))
    assert all(torch.equal(weights["student"][key], original[key]) for key in original)
    assert all(torch.equal(weights["teacher"][key], original[key] + 1) for key in original)


def test_a_detector_is_no_distiller(tmp_path):
    with pytest.raises(CheckpointError, match=r"no keys under 'student\.'.*bbox_head"):
        convert_file(str(FCOS), str(tmp_path / "out.pth"), "student")


@pytest.mark.parametrize("what", ["missing", "ours", "damaged", "no folder", "same file"])
def test_errors_say_what_is_wrong_and_leave_no_file(tmp_path, what):
    folder = tmp_path / "out"
    folder.mkdir()
    source, target = tmp_path / "in.pth", folder / "out.pth"
    if what == "missing":
        parts = ["in.pth does not exist"]
    elif what == "ours":
        torch.save({"model": tiny_fcos().state_dict()}, source)
        parts = ["in.pth is no checkpoint of a detector of mmdetection", "['model']"]
    elif what == "damaged":
        source.write_bytes(FCOS.read_bytes()[:1000])
        parts = ["in.pth (1000 bytes) could not be read"]
    elif what == "no folder":
        source.write_bytes(FCOS.read_bytes())
        target = folder / "none" / "out.pth"
        parts = ["the folder of OUT does not exist"]
    else:
        source.write_bytes(FCOS.read_bytes())
        target = source
        parts = ["are the same file"]
    done = run(source, target)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert os.listdir(folder) == []
