"""The code of the README runs."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate

import dense_kd
from dense_kd import BCKD, Distiller, MethodSet, Teacher
from helpers.builders import batch, instances, tiny_fcos

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_ten_lines_are_ten_and_distil_a_stock_config(tmp_path):
    assert len(BLOCKS[0].splitlines()) == 10
    path = tmp_path / "distill.py"
    path.write_text(BLOCKS[0])
    cfg = LazyConfig.load(str(path))
    assert {"dataloader", "optimizer", "lr_multiplier", "train"} <= set(cfg)
    cfg.model.teacher.weights = None
    model = instantiate(cfg.model)
    truth = instances((64, 64), [[4, 4, 60, 50]], [1])
    losses = model([{"image": torch.randint(0, 255, (3, 64, 64)), "instances": truth}])
    assert {"loss_cls", "loss_box_reg", "kd_bckd_loss_cls", "kd_bckd_loss_loc"} == set(losses)


def test_the_method_of_the_readme_runs_beside_bckd():
    names: dict = {}
    exec(BLOCKS[1], names)
    methods = MethodSet(bckd=BCKD(), mse=names["LogitMSE"](weight=2.0))
    teacher = Teacher(tiny_fcos(seed=1), None)
    losses = Distiller(student=tiny_fcos(), teacher=teacher, methods=methods)(batch())
    assert losses["kd_mse_loss_logits"] > 0 and losses["kd_bckd_loss_cls"] > 0


def test_files_and_configs_that_the_readme_names_exist():
    for name in re.findall(r"`((?:retinanet|fcos|bckd|quickstart)/\w+\.py)`", README):
        dense_kd.get_config_file(name)
    for name in re.findall(r"(configs/[\w/]+\.py|tools/\w+\.py|projects/[\w/]+\.py)", README):
        assert (ROOT / name).is_file(), name
