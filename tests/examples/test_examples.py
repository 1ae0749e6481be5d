"""The programs in ``examples/`` run as they are printed, on a few images."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from dense_kd import get_config
from dense_kd.checkpoint import load_strictly
from dense_kd.data import generate_shapes, register_shapes
from helpers.checked_runs import unregister
from helpers.script_runs import trainings_are_forked

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORTER = "iterations=1, teacher_iterations=1, batch_size=2, num_workers=0"
OVERRIDES = [
    "train.max_iter=1",
    "dataloader.train.dataset.names=examples_train",
    "dataloader.test.dataset.names=examples_val",
    "dataloader.train.total_batch_size=2",
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("shapes")
    for split in ("train", "val"):
        generate_shapes(root, split, 4, image_size=(64, 64))
        register_shapes(f"examples_{split}", root, split)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    model = instantiate(get_config("quickstart/teacher.py").model)
    torch.save({"model": model.state_dict()}, path)
    yield str(path)
    unregister("examples_train", "examples_val")


def main_of(name: str):
    return runpy.run_path(str(EXAMPLES / name), run_name="an example")["main"]


@pytest.mark.parametrize("name", ["own_method.py", "own_detector.py"])
def test_a_run_with_a_class_of_ones_own_trains_and_evaluates(name: str, teacher, tmp_path):
    folder = tmp_path / "run"
    main_of(name)([*OVERRIDES, f"train.output_dir={folder}", f"model.teacher.weights={teacher}"])
    metrics = (folder / "metrics.json").read_text()
    term = {"own_method.py": "kd_rank_loss_rank", "own_detector.py": "kd_pkd_"}[name]
    assert term in metrics and (folder / "model_final.pth").is_file()


def test_images_of_ones_own_are_learnt_by_a_teacher_and_distilled_on(tmp_path, monkeypatch, capsys):
    """Also where their classes are others than those of the configs."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        file = Path(generate_shapes(tmp_path / "photos", split, 3, image_size=(64, 64)))
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            annotation["category_id"] = 1 + annotation["category_id"] % 2
        content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        file.write_text(json.dumps(content))
    shorter = ["train.max_iter=1", "dataloader.train.total_batch_size=2"]
    main_of("own_dataset.py")(["photos", *shorter])
    assert "3 images to learn from, 3 to test with" in capsys.readouterr().out
    metrics = (tmp_path / "output" / "own_dataset" / "student" / "metrics.json").read_text()
    assert "kd_bckd_loss_cls" in metrics and "bbox/AP-dog" in metrics
    unregister("own_train", "own_val")


def test_a_plain_loop_ends_with_a_student_alone(tmp_path):
    output = tmp_path / "student.pth"
    arguments = ["--images", "4", "--iterations", "2", "--batch", "2", "--output", str(output)]
    losses = main_of("plain_loop.py")([*arguments, "--data", str(tmp_path / "shapes")])
    assert {"kd_bckd_loss_cls", "kd_pkd_loss_feature"} <= losses.keys()
    load_strictly(instantiate(get_config("quickstart/student.py").model), str(output))


def test_the_notebook_goes_from_images_to_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        generate_shapes(tmp_path / "photos", split, 3, image_size=(64, 64))
    cells = json.loads((EXAMPLES / "images_to_picture.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    shorter = (
        "ITERATIONS = 1\nfor_a_test = dict(teacher_iterations=1, batch_size=2, num_workers=0)\n"
    )
    code = [re.sub(r"^ITERATIONS = .*\n", shorter, text, flags=re.MULTILINE) for text in code]
    code = [text.replace("(DATA, **options", "(DATA, **options, **for_a_test") for text in code]
    names: dict[str, Any] = {}
    with trainings_are_forked():
        for text in code:
            exec(compile(text, "a cell", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"^distilled +(AP|nothing).* parameters$", printed, flags=re.MULTILINE)
    assert names["prediction"].draw().size >= (64, 64)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_run(path: Path):
    text = path.read_text("utf-8")
    assert re.search(rf"^    python examples/{path.name}", text, flags=re.MULTILINE)
    assert len(text.splitlines()) < 120
