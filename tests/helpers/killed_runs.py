"""Runs that are to end alike whether they are killed or not: small, and different in all that a
checkpoint has to hold."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from fvcore.transforms.transform import BlendTransform
from omegaconf import DictConfig

from dense_kd import (
    BCKD,
    FGD,
    FGFI,
    FKD,
    FRS,
    KD,
    LD,
    MGD,
    PGD,
    PKD,
    TID,
    CanKD,
    CrossKD,
    DeFeat,
    Distiller,
    FitNet,
    GIBox,
    MethodSet,
    PseudoLabels,
    Teacher,
    from_detectron2,
)
from dense_kd.data import (
    UnlabelledLoader,
    detection_dataset,
    generate_shapes,
    register_shapes,
)
from dense_kd.methods.base import KDMethod

from . import builders, checked_runs

ITERATIONS = 6
NUM_CLASSES = 5  # of the shapes
SIZES = {"wide": (40, 64), "high": (64, 40)}  # (height, width)
IMAGES = {"train": 5, "val": 1}  # of each size


@dataclass(frozen=True)
class Variant:
    """A run.

    Attributes:
        student: its LazyConfig, made by a function of ``builders.py``.
        methods: of a distillation; none is a training of the student alone.
        overrides: of the config.
        batch_norm: in the student's backbone; else its norms are frozen.
        num_processes: that share a batch.
        unlabelled: whether each batch has images without labels, too.
    """

    student: Callable[..., DictConfig]
    methods: tuple[Callable[[], DictConfig], ...] = ()
    overrides: tuple[str, ...] = ()
    batch_norm: bool = False
    num_processes: int = 1
    unlabelled: bool = False


def method(kind: type[KDMethod], **options: Any) -> Callable[[], DictConfig]:
    """A LazyConfig of a method, made when it is wanted."""
    return lambda: L(kind)(**options)


VARIANTS = {
    "RetinaNet, workers": Variant(
        builders.retinanet_config,
        overrides=("dataloader.train.num_workers=2", "train.eval_period=1"),
        batch_norm=True,
    ),
    "FCOS, MGD, PGD, FKD and CanKD": Variant(
        builders.fcos_config,
        (method(MGD, weight=1e-3), method(PGD), method(FKD), method(CanKD)),
        ("train.eval_period=1",),
    ),
    "ATSS, CrossKD, accumulated": Variant(
        builders.atss_config,
        (method(CrossKD, depth=1, warmup_iters=3),),
        ("train.accumulate=2", "train.eval_period=3"),
    ),
    "GFL, LD, BCKD, TID, FitNet and DeFeat, bfloat16": Variant(
        builders.gfl_config,
        (method(LD), method(BCKD), method(TID), method(FitNet), method(DeFeat)),
        (
            "train.amp.enabled=True",
            "train.amp.dtype=bfloat16",
            "train.diagnostics={period: 2, images: 1}",
            "train.maps.period=3",
            "train.eval_period=2",
        ),
    ),
    "DDOD, FGD and MGD, two processes, unlabelled images": Variant(
        builders.ddod_config,
        (method(FGD), method(MGD, weight=1e-3)),
        ("train.eval_period=2",),
        batch_norm=True,
        num_processes=2,
        unlabelled=True,
    ),
    "RetinaNet, PKD, KD, FGFI, FRS and GIBox, clipped, unlabelled images": Variant(
        builders.retinanet_config,
        (method(PKD), method(KD), method(FGFI, warmup_iters=2), method(FRS), method(GIBox)),
        ("train.clip_grad={max_norm: 1.0}", "dataloader.train.aspect_ratio_grouping=False"),
        unlabelled=True,
    ),
    "AutoAssign, accumulated": Variant(
        builders.autoassign_config,
        overrides=(
            "dataloader.train.num_workers=3",
            "train.accumulate=2",
            "train.normalize=iteration",
        ),
        batch_norm=True,
    ),
}


class Jitter(T.Augmentation):
    """Draws from Python's and torch's generators; detectron2's augmentations do from numpy's."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Nearer to grey."""
        weight = 0.5 * (random.random() + torch.rand(()).item())
        return BlendTransform(src_image=image.mean(), src_weight=1 - weight, dst_weight=weight)


def make_images(root: Path) -> None:
    """Of both aspect ratios."""
    for name, size in SIZES.items():
        for split, count in IMAGES.items():
            generate_shapes(root / name, split, count, image_size=size)


def register_images(root: Path) -> None:
    """In this process, those of :func:`make_images`."""
    for name in SIZES:
        for split in IMAGES:
            register_shapes(f"killed_{name}_{split}", root / name, split)


def config_of(variant: Variant, folder: Path, teacher: Path) -> DictConfig:
    """The LazyConfig of a run.

    Args:
        variant: one of :data:`VARIANTS`.
        folder: of the run.
        teacher: file of its weights, which is written if it is not there.
    """
    cfg = checked_runs.load(
        "dataloader.train.dataset.names=[killed_wide_train,killed_high_train]",
        "dataloader.test.dataset.names=killed_wide_val",
        f"train.output_dir={folder}",
        f"train.max_iter={ITERATIONS}",
        "train.checkpointer.period=2",
        "train.log_period=1",
    )
    student = _detector(variant)
    if variant.batch_norm:
        student.backbone.norm = "BN"
    cfg.model = student
    cfg.dataloader.train.mapper.augmentations.append(L(Jitter)())
    if variant.methods:
        model = _detector(variant)
        methods = {f"m{i}": make() for i, make in enumerate(variant.methods)}
        cfg.model = L(Distiller)(
            student=student,
            teacher=L(Teacher)(model=model, weights=str(teacher)),
            methods=L(MethodSet)(**methods),
        )
        if variant.unlabelled:
            _add_unlabelled(cfg)
        if not teacher.is_file():
            torch.manual_seed(0)
            torch.save({"model": instantiate(model).state_dict()}, teacher)
    return checked_runs.apply_overrides(cfg, list(variant.overrides))


def _add_unlabelled(cfg: DictConfig) -> None:
    """The images of the training, without labels, in which the teacher finds something."""
    labelled = cfg.dataloader.train
    cfg.dataloader.unlabelled = L(UnlabelledLoader)(
        dataset=L(detection_dataset)(names=list(labelled.dataset.names), filter_empty=False),
        mapper=copy.deepcopy(labelled.mapper),
        total_batch_size=4,
        num_workers=labelled.num_workers,
    )
    cfg.model.teacher.model.test_score_thresh = 0.005
    cfg.model.pseudo_labels = L(PseudoLabels)(score_thresh=0.01)


def _detector(variant: Variant) -> DictConfig:
    config = variant.student(width=4, channels=8, depth=1, num_classes=NUM_CLASSES)
    return from_detectron2(config) if variant.student is builders.retinanet_config else config
