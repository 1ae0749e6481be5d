"""What run configs share: the student's recipe, taken over, and teachers with their weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from .checkpoint import FINAL_CHECKPOINT
from .config import get_config
from .teacher import Teacher

__all__ = ["known_teacher", "recipe"]

PUBLISHED = {
    "atss/r101_1x.py": "mmdet://atss_r101_fpn_1x_coco",
    "atss/r50_1x.py": "mmdet://atss_r50_fpn_1x_coco",
    "autoassign/r50_1x.py": "mmdet://auto_assign_r50_fpn_1x_coco",
    "ddod/r50_1x.py": "mmdet://ddod_r50_fpn_1x_coco",
    "fcos/mmdet_r101_1x.py": "mmdet://fcos_r101_caffe_fpn_gn-head_1x_coco",
    "fcos/mmdet_r101_2x_ms.py": "mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco",
    "fcos/mmdet_r50_1x.py": "mmdet://fcos_r50_caffe_fpn_gn-head_1x_coco",
    "fcos/mmdet_r50_2x_ms.py": "mmdet://fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco",
    "fcos/mmdet_tricks_r50_1x.py": (
        "mmdet://fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco"
    ),
    "gfl/r101_2x_ms.py": "mmdet://gfl_r101_fpn_mstrain_2x_coco",
    "gfl/r50_1x.py": "mmdet://gfl_r50_fpn_1x_coco",
    "gfl/r50_2x_ms.py": "mmdet://gfl_r50_fpn_mstrain_2x_coco",
    "retinanet/mmdet_r101_1x.py": "mmdet://retinanet_r101_fpn_1x_coco",
    "retinanet/mmdet_r101_2x.py": "mmdet://retinanet_r101_fpn_2x_coco",
    "retinanet/mmdet_r50_1x.py": "mmdet://retinanet_r50_fpn_1x_coco",
    "retinanet/mmdet_r50_2x.py": "mmdet://retinanet_r50_fpn_2x_coco",
    "retinanet/mmdet_x101_1x.py": "mmdet://retinanet_x101_64x4d_fpn_1x_coco",
    "retinanet/mmdet_x101_32x4d_1x.py": "mmdet://retinanet_x101_32x4d_fpn_1x_coco",
    "retinanet/mmdet_x101_3x_ms.py": "mmdet://retinanet_x101_64x4d_fpn_mstrain_3x_coco",
    "retinanet/r101_2x_ms.py": (
        "detectron2://COCO-Detection/retinanet_R_101_FPN_3x/190397697/model_final_971ab9.pkl"
    ),
    "retinanet/r50_1x_ms.py": (
        "detectron2://COCO-Detection/retinanet_R_50_FPN_1x/190397773/model_final_bfca0b.pkl"
    ),
}
"""{config: weights} of the detectors that somebody has trained and published."""

_RECIPE = ("dataloader", "optimizer", "lr_multiplier", "train")


def recipe(
    student: Mapping[str, Any], file: str | None = None
) -> tuple[DictConfig, DictConfig, DictConfig, DictConfig]:
    """The recipe of a student, for the config of a run that teaches it.

    As in::

        dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)

    Args:
        student: its whole config. It stays as it is, whatever becomes of the copies.
        file: the run's config file, so that it writes to ``output/<its folder>/<its name>``;
            None keeps the student's ``train.output_dir``.

    Returns:
        Copies of its ``dataloader``, ``optimizer``, ``lr_multiplier`` and ``train``.

    Raises:
        ValueError: ``student`` is no config or has not all of them.
    """
    _check_parts("the student's config", student, _RECIPE)
    copies = DictConfig({part: student[part] for part in _RECIPE}, flags={"allow_objects": True})
    if file is not None:
        folder, name = os.path.split(os.path.abspath(file))
        stem = os.path.splitext(name)[0]
        copies.train.output_dir = f"output/{os.path.basename(folder)}/{stem}"
    return copies.dataloader, copies.optimizer, copies.lr_multiplier, copies.train


def known_teacher(path: str) -> DictConfig:
    """A detector of this project's configs as a teacher, with its trained weights.

    These are the published ones or, where there are none, ``model_final.pth`` of the config's own
    run, which has to be trained first. ``model.teacher.weights=FILE`` names others.

    Args:
        path: of its config, relative to ``configs/``, as in "gfl/r101_2x_ms.py".

    Returns:
        The LazyCall of a :class:`Teacher`, which folds its norms.

    Raises:
        FileNotFoundError: there is no such config; the message names close matches.
        ValueError: the config has no model.
    """
    config = get_config(path)
    _check_parts(path, config, ("model", "train"))
    path = os.path.normpath(path)  # as the table has it
    trained = f"{config.train.output_dir}/{FINAL_CHECKPOINT}"
    return L(Teacher)(model=config.model, weights=PUBLISHED.get(path, trained), fold_norms=True)


def _check_parts(what: str, config: Mapping[str, Any], parts: Iterable[str]) -> None:
    expected = "expected the whole config of a detector, as get_config returns it"
    if not isinstance(config, Mapping):
        raise ValueError(f"{what} is {config!r}; {expected}")
    missing = [part for part in parts if config.get(part) is None]
    if missing:
        has = ", ".join(sorted(map(str, config))) or "nothing"
        raise ValueError(f"{what} has no {', '.join(missing)} (it has {has}); {expected}")
