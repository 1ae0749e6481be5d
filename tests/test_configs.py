"""Every config of the project instantiates and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import instances
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import COCOEvaluator

from dense_kd import Distiller, get_config_file

ROOT = Path(get_config_file("quickstart/student.py")).parent.parent
RUNS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] != "common"
)


def test_there_are_configs():
    assert len(RUNS) > 10


@pytest.mark.parametrize("name", RUNS)
def test_a_config_trains_one_step_and_detects(name):
    torch.manual_seed(0)
    cfg = LazyConfig.load(str(ROOT / name))
    if "teacher" in cfg.model:
        assert cfg.model.teacher.weights
        cfg.model.teacher.weights = None
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    truth = instances((64, 96), [[4, 4, 60, 50], [20, 10, 36, 30]], [1, 3])
    inputs = [{"image": torch.randint(0, 255, (3, 64, 96)), "instances": truth}]

    losses = model(inputs)
    assert any(key.startswith("kd_") for key in losses) == isinstance(model, Distiller)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    model.eval()
    with torch.no_grad():
        assert set(model(inputs)[0]["instances"].get_fields()) == {
            "pred_boxes", "scores", "pred_classes",
        }  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_config_has_a_whole_recipe(name):
    cfg = LazyConfig.load(str(ROOT / name))
    multiplier = instantiate(cfg.lr_multiplier)
    assert multiplier(0.0) < multiplier(0.5) >= multiplier(0.999) > 0
    assert cfg.train.max_iter > 0
    assert cfg.dataloader.evaluator._target_ in (COCOEvaluator, "COCOEvaluator")
    assert cfg.dataloader.train.mapper.image_format == cfg.dataloader.test.mapper.image_format
    student = cfg.model.student if "student" in cfg.model else cfg.model
    assert student.get("input_format", "BGR") == cfg.dataloader.train.mapper.image_format


def test_no_two_configs_write_to_the_same_folder():
    folders = [LazyConfig.load(str(ROOT / name)).train.output_dir for name in RUNS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", [n for n in RUNS if not n.startswith("quickstart/")])
def test_a_schedule_of_coco_drops_where_its_name_says(name):
    cfg = LazyConfig.load(str(ROOT / name))
    epochs = {"1x": 12, "2x": 24}[name.removesuffix(".py").rsplit("_", 1)[1]]
    assert cfg.train.max_iter == epochs * 7500
    assert cfg.dataloader.train.total_batch_size == 16
    multiplier = instantiate(cfg.lr_multiplier)
    assert multiplier(0.6) == pytest.approx(1.0)
    assert multiplier(0.7) == pytest.approx(0.1)
    assert multiplier(0.95) == pytest.approx(0.01)
