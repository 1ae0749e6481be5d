"""Every config of the project instantiates and runs."""

from __future__ import annotations

import math
import re
from typing import ClassVar
from unittest import mock

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import COCOEvaluator
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dense_kd import Distiller, FeatureTeacher, Teacher, get_config
from dense_kd.checkpoint import zoo
from dense_kd.engine import RunError, check_run
from dense_kd.engine.checks.tree import calls_of
from dense_kd.evaluation import CrowdHumanEvaluator, VOCEvaluator
from helpers.builders import instances
from helpers.configs import (
    FULL_RUNS,
    ROOT,
    RUNS,
    detectors_of,
    fresh,
    load,
    loaded_anew,
    make_small,
    random_numbers_from_a_table,
    skip_without_timm,
)

IMAGES = {"coco": 7500 * 16, "voc": 16551, "crowdhuman": 15000}
"""Of an epoch; the papers round those of COCO."""
EVALUATORS = {
    "coco": COCOEvaluator,
    "voc": VOCEvaluator,
    "crowdhuman": CrowdHumanEvaluator,
}


def dataset_of(name: str) -> str:
    """What its name begins with, COCO if with no dataset."""
    first = name.split("/")[1].split("_")[0]
    return first if first in IMAGES else "coco"


class Teachers:
    """The last teachers that were built: configs share them."""

    _built: ClassVar[dict[str, nn.Module]] = {}

    @classmethod
    def get(cls, config: DictConfig) -> nn.Module:
        key = repr(OmegaConf.to_container(config))
        model = cls._built.pop(key, None)
        cls._built[key] = instantiate(config) if model is None else model
        if len(cls._built) > 4:
            del cls._built[next(iter(cls._built))]
        return cls._built[key]


TRAINED: set[str] = set()
"""What of the configs trained one step: as small detectors several are the same."""


def test_there_are_configs():
    assert len(RUNS) > 10


@pytest.mark.parametrize("name", ["bckd/gfl_r101_r50_1x.py", "quickstart/distill.py"])
def test_a_config_from_copies_of_others_is_as_if_they_were_loaded_for_it(name):
    assert load(name) == get_config(name) == loaded_anew(name)


def without_weights(name: str) -> DictConfig:
    """The config without the weights of its teachers."""
    cfg = fresh(name)
    for _, teacher in calls_of(cfg.model, "model", (Teacher, FeatureTeacher)):
        teacher.weights = None
    return cfg


@pytest.mark.parametrize("name", RUNS)
def test_a_config_trains_one_step_and_detects(name):
    """As small detectors: whether large ones fit together is told without numbers below."""
    cfg = without_weights(name)
    skip_without_timm(cfg.model)
    for model in detectors_of(cfg.model):
        make_small(model)
    parts = cfg.model, cfg.optimizer, cfg.train.clip_grad
    key = repr([OmegaConf.to_container(part, resolve=True) if part else part for part in parts])
    if key in TRAINED:
        return
    with random_numbers_from_a_table():
        if cfg.model.get("teacher") is not None:
            cfg.model.teacher.model = Teachers.get(cfg.model.teacher.model)
        model = instantiate(cfg.model)
    train_one_step_and_detect(model, cfg)
    TRAINED.add(key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bckd/retinanet_x101_r50_1x.py"])
def test_a_config_as_it_is_trains_one_step_and_detects(name):
    cfg = without_weights(name)
    train_one_step_and_detect(instantiate(cfg.model), cfg)


def train_one_step_and_detect(model: nn.Module, cfg: DictConfig) -> None:
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    # The nodes of a config refer to each other, so what they hold would outlive this test.
    cfg.optimizer.params.model = None
    if cfg.model.get("teacher") is not None:
        cfg.model.teacher.model = None
    last = detectors_of(cfg.model)[0].num_classes - 1
    truth = instances((32, 64), [[2, 2, 30, 30], [20, 10, 36, 26]], [min(1, last), min(3, last)])
    inputs = [{"image": torch.randint(0, 255, (3, 32, 64)), "instances": truth}]

    losses = model(inputs)
    assert any(key.startswith("kd_") for key in losses) == isinstance(model, Distiller)
    sum(losses.values()).backward()
    if cfg.train.clip_grad:
        torch.nn.utils.clip_grad_norm_(model.parameters(), **cfg.train.clip_grad)
    optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    model.eval()
    with torch.no_grad():
        assert set(model(inputs)[0]["instances"].get_fields()) == {
            "pred_boxes", "scores", "pred_classes",
        }  # fmt: skip


def nothing_is_drawn():
    """On "meta", torch takes the steps of drawing numbers, of which there are none."""

    def same(weights: Tensor, *_: float, **__: object) -> Tensor:
        return weights

    return mock.patch.multiple(torch.Tensor, normal_=same, uniform_=same)


def norms_that_only_check_channels():
    """On "meta", torch computes a norm step by step, which takes most of the time."""

    def batch_norm(features: Tensor, weight: Tensor | None, bias: Tensor | None, *others) -> Tensor:
        assert all(
            x.shape == features.shape[1:2] for x in (weight, bias, *others[:2]) if x is not None
        )
        return features

    return mock.patch.object(torch, "batch_norm", batch_norm)


@pytest.mark.slow
def test_detectors_fit_together_at_their_true_depth():
    """Of all configs, each different one once; tensors on "meta" have shapes and no numbers."""
    seen = set()
    for name in RUNS:
        skip_without_timm(load(name).model)
        for config in detectors_of(load(name).model):
            key = repr(OmegaConf.to_container(config))
            if key in seen:
                continue
            seen.add(key)
            with torch.device("meta"), torch.no_grad(), norms_that_only_check_channels():
                with nothing_is_drawn():
                    model = instantiate(config)
                features = model.backbone(torch.empty(1, 3, 64, 96))
            for level, spec in model.backbone.output_shape().items():
                size = [math.ceil(length / spec.stride) for length in (64, 96)]
                assert features[level].shape == (1, spec.channels, *size), (name, level)
    assert len(seen) > 20


@pytest.mark.parametrize("name", RUNS)
def test_a_config_has_a_whole_recipe(name):
    cfg = load(name)
    multiplier = instantiate(cfg.lr_multiplier)
    assert multiplier(0.0) < multiplier(0.5) >= multiplier(0.999) > 0
    assert cfg.train.max_iter > 0
    evaluator = EVALUATORS[dataset_of(name)]
    target = cfg.dataloader.evaluator._target_
    assert target == evaluator.__name__ or issubclass(target, evaluator)
    assert cfg.dataloader.train.mapper.image_format == cfg.dataloader.test.mapper.image_format
    student = cfg.model.student if "student" in cfg.model else cfg.model
    assert student.get("input_format", "BGR") == cfg.dataloader.train.mapper.image_format


@pytest.mark.parametrize("name", RUNS)
def test_a_config_passes_the_checks_before_a_run_but_for_what_a_machine_lacks(name):
    try:
        check_run(load(name), "train")
    except RunError as error:
        lacking = ("does not exist", "there is no GPU here", "not installed", "need the package")
        assert [p for p in error.problems if not any(text in p for text in lacking)] == []


@pytest.mark.parametrize("name", RUNS)
def test_a_config_writes_to_the_folder_of_its_name(name):
    folder = "quickstart/bckd" if name == "quickstart/distill.py" else name.removesuffix(".py")
    assert load(name).train.output_dir == f"output/{folder}"


@pytest.mark.slow  # it loads all
def test_no_two_configs_write_to_the_same_folder():
    folders = [load(name).train.output_dir for name in RUNS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", FULL_RUNS)
def test_a_schedule_is_as_long_and_drops_where_its_name_says(name):
    cfg = load(name)
    schedule = name.removesuffix(".py").removesuffix("_ms").rsplit("_", 1)[1]
    epochs = {"1x": 12, "2x": 24, "3x": 36}[schedule]
    images = epochs * IMAGES[dataset_of(name)]
    assert cfg.train.max_iter == images // cfg.dataloader.train.total_batch_size
    assert cfg.optimizer.lr == 0.01 * cfg.dataloader.train.total_batch_size / 16
    multiplier = instantiate(cfg.lr_multiplier)
    assert multiplier(0.6) == pytest.approx(1.0)
    assert multiplier(0.79 if schedule == "3x" else 0.7) == pytest.approx(0.1)
    assert multiplier(0.95) == pytest.approx(0.01)
    resize = cfg.dataloader.train.mapper.augmentations[0]
    assert (len(resize.short_edge_length) > 1) == name.endswith("_ms.py")


def detector_and_backbone(model):
    """As in the name of a config, such as ("gfl", "r50")."""
    target = model._target_
    detector = (target if isinstance(target, str) else target.__name__).rsplit(".", 1)[-1].lower()
    bottom_up = model.backbone.bottom_up
    if "stages" not in bottom_up:
        target = bottom_up._target_
        target = target if isinstance(target, str) else target.__name__
        return detector, {"MobileNetV2": "mobilenetv2", "SwinTransformer": "swin_t"}[
            target.rsplit(".", 1)[-1]
        ]
    layers = 3 if "bottleneck_channels" in bottom_up.stages[0] else 2
    depth = 2 + layers * sum(stage.num_blocks for stage in bottom_up.stages)
    groups = bottom_up.stages[0].get("num_groups", 1)
    return detector, f"{'x' if groups > 1 else 'r'}{depth}"


@pytest.mark.parametrize("name", FULL_RUNS)
def test_a_name_says_detectors_and_backbones(name):
    cfg = load(name)
    folder, file = name.split("/")
    if "teacher" not in cfg.model:
        detector, backbone = detector_and_backbone(cfg.model)
        assert folder == detector and f"_{backbone}_" in f"_{file}"
        return
    detector, backbone = detector_and_backbone(cfg.model.student)
    teacher, of_teacher = detector_and_backbone(cfg.model.teacher.model)
    detectors = detector if teacher == detector else f"{detector}_{teacher}"
    named = file.removeprefix("pgd_").removeprefix(f"{dataset_of(name)}_")
    assert named.startswith(f"{detectors}_{of_teacher}_{backbone}_"), named


@pytest.mark.parametrize("name", FULL_RUNS)
def test_the_images_are_those_that_the_weights_to_start_from_expect(name):
    cfg = load(name)
    student = cfg.model.student if "student" in cfg.model else cfg.model
    source = cfg.train.init_checkpoint
    if "MSRA" in source:
        assert student.input_format == "BGR" and list(student.pixel_std) == [1.0, 1.0, 1.0]
    else:
        assert student.input_format == "RGB" and student.pixel_std[0] == 58.395


@pytest.mark.parametrize("name", FULL_RUNS)
def test_the_weights_to_start_from_have_a_name_that_is_known(name):
    source = load(name).train.init_checkpoint
    prefix, _, weights = source.partition("://")
    if prefix == "detectron2":
        assert re.fullmatch(r"ImageNetPretrained/MSRA/R-(50|101)\.pkl", weights)
    else:
        urls = {"mmdet": zoo.MMDET_URLS, "torchvision": zoo.TORCHVISION_URLS}[prefix]
        assert weights in urls


@pytest.mark.slow  # it loads all
def test_teachers_have_weights_with_a_known_name_or_of_a_config_of_ours():
    for name in FULL_RUNS:
        if "teacher" not in load(name).model:
            continue
        teacher = load(name).model.teacher
        prefix, found, weights = teacher.weights.partition("://")
        if found and prefix == "mmdet":
            assert weights in zoo.MMDET_URLS, name
        elif found:
            assert re.fullmatch(r"COCO-Detection/\w+/\d+/model_final_\w+\.pkl", weights), name
        else:
            folder, file = teacher.weights.rsplit("/", 1)
            trained = load(folder.removeprefix("output/") + ".py")
            assert (trained.train.output_dir, file) == (folder, "model_final.pth"), name
            assert trained.model == teacher.model, name


def documented_overrides(name):
    """Overrides of methods that the config's docstring gives."""
    text = (ROOT / name).read_text().split('"""')[1]
    return re.findall(r"model\.methods\.[\w.]+=[\w.]*\w", text)


@pytest.mark.parametrize("name", [name for name in RUNS if documented_overrides(name)])
def test_the_overrides_of_a_docstring_change_the_methods(name):
    usual = repr(instantiate(load(name).model.methods))
    for override in documented_overrides(name):
        cfg = LazyConfig.apply_overrides(fresh(name), [override])
        methods = instantiate(cfg.model.methods)
        assert repr(methods) != usual, override
