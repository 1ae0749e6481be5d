"""The code of the first pages runs, and what they name is there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from helpers.builders import batch, instances, tiny_fcos
from helpers.configs import random_numbers_from_a_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
START, DEVELOPING = (
    (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("index", "developing")
)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
TEN_LINES, METHOD = (
    re.search(r"```python\n(.*?)```", page, re.DOTALL)[1] for page in (START, DEVELOPING)
)


@pytest.mark.slow
def test_the_ten_lines_are_ten_and_distil_a_stock_config(tmp_path):
    assert len(TEN_LINES.splitlines()) == 10
    path = tmp_path / "distill.py"
    path.write_text(TEN_LINES)
    cfg = LazyConfig.load(str(path))
    assert {"dataloader", "optimizer", "lr_multiplier", "train"} <= set(cfg)
    cfg.model.teacher.weights = None
    with random_numbers_from_a_table():
        model = instantiate(cfg.model)
    truth = instances((64, 64), [[4, 4, 60, 50]], [1])
    losses = model([{"image": torch.randint(0, 255, (3, 64, 64)), "instances": truth}])
    assert {"loss_cls", "loss_box_reg", "kd_bckd_loss_cls", "kd_bckd_loss_loc"} == set(losses)


def test_the_method_for_developers_runs_beside_bckd():
    names: dict = {}
    exec(METHOD, names)
    methods = MethodSet(bckd=BCKD(), mse=names["LogitMSE"](weight=2.0))
    teacher = Teacher(tiny_fcos(seed=1), None)
    losses = Distiller(student=tiny_fcos(), teacher=teacher, methods=methods)(batch())
    assert losses["kd_mse_loss_logits"] > 0 and losses["kd_bckd_loss_cls"] > 0


def drawn_paths() -> set[str]:
    """Of the picture of the folders: what stands before the gap of each line, below its folder."""
    lines = itertools.takewhile(
        lambda line: line.startswith("    "),
        DEVELOPING.partition("## The folders\n\n")[2].splitlines(),
    )
    paths, above = set(), [""]
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        above = [*above[: depth + 1], above[depth] + names[0]]
        paths |= {above[depth] + name for name in names}
    return paths


def test_the_picture_of_the_folders_shows_what_is_there():
    drawn = drawn_paths()
    package = ROOT / "projects" / "dense_kd"
    for path in drawn:
        assert (ROOT / path).exists(), path
    folders = {path.parent for path in package.rglob("*.py")}
    assert {f"{path.relative_to(ROOT).as_posix()}/" for path in folders} <= drawn
    files = {path.relative_to(ROOT).as_posix() for path in package.glob("*.py")}
    assert files - drawn == {"projects/dense_kd/__init__.py"}


def test_what_contributing_names_exists():
    names = re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", CONTRIBUTING)
    assert len(names) > 15
    for name in names:
        places = (ROOT, ROOT / "projects" / "dense_kd", ROOT / "projects/dense_kd/detectors",
                  ROOT / "tests" / "helpers")  # fmt: skip
        assert any((place / name).exists() for place in places), name


def test_files_and_configs_that_pages_name_exist():
    pages = [README, *(page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))]
    text = "\n".join(pages)
    names = set(re.findall(r"`(\w+/\w+\.py)`", text))
    assert len(names) > 150
    places = (ROOT, ROOT / "configs", ROOT / "projects" / "dense_kd")
    assert [name for name in names if not any((place / name).is_file() for place in places)] == []
    for name in re.findall(r"(configs/[\w/]+\.py|tools/\w+\.py|projects/[\w/]+\.py)", text):
        assert (ROOT / name).is_file(), name
