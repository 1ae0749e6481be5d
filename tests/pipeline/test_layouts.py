"""A folder of images in each layout becomes a detector, with the README's two commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from dense_kd.cli import main
from helpers.own_datasets import NAMES, scenes, write_coco, write_image, write_voc, write_yolo
from helpers.script_runs import trainings_are_forked
from helpers.small_distillation import SMALL

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    dense-kd ((?:distill|predict) .*)$", README, flags=re.MULTILINE)
# So that scores rise above the least that is evaluated, and no further, in a few iterations.
LEARNED = {"iterations": 12, "teacher_iterations": 12, "learning_rate": 0.01,
           "teacher_learning_rate": 0.01, "warmup_iterations": 0}  # fmt: skip
SMALLER = {
    "distill": [
        word
        for option, value in {**SMALL, **LEARNED, "checkpoint_period": 12}.items()
        for word in (f"--{option.replace('_', '-')}", str(value))
    ],
    "predict": ["--threshold", "0.05"],
}
COUNT = 40


def write_coco_photos(folder: Path) -> None:
    write_coco(folder / "annotations.json", scenes(COUNT), folder / "images")


def write_voc_photos(folder: Path) -> None:
    write_voc(folder, scenes(COUNT))


def write_yolo_photos(folder: Path) -> None:
    write_yolo(folder / "images", folder / "labels", scenes(COUNT))
    (folder / "data.yaml").write_text(f"names: {list(NAMES)}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [write_coco_photos, write_voc_photos, write_yolo_photos], ids=["COCO", "VOC", "YOLO"]
)
def test_the_readmes_commands_lead_from_photos_to_a_student_its_ap_and_detections(
    write, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write(Path("photos"))
    for name in ("a.jpg", "b.png", "c d.jpg"):
        write_image(Path("new_photos") / name)
    with trainings_are_forked():
        for command in COMMANDS:
            if write is not write_coco_photos:  # the student alone is the same, and takes its time
                command = command.replace(" --compare", "")
            name, *words = shlex.split(command)
            assert main([name, *words, *SMALLER[name]]) == 0, capsys.readouterr().err
    output = Path("output/distill/photos")
    assert "40 images" in capsys.readouterr().out
    detectors = json.loads((output / "metrics.json").read_text())["detectors"]
    assert {"teacher", "distilled"} <= set(detectors)
    assert all(detector["val"]["AP"] > 1 for detector in detectors.values())
    assert "<svg" in (output / "report.html").read_text(encoding="utf-8")
    assert torch.load(output / "distilled.pth", weights_only=True)["model"]
    found = json.loads(Path("found/predictions.json").read_text())
    assert {detection["category"] for detection in found} <= set(NAMES) and found
    assert len([*Path("found/images").iterdir()]) == 3
