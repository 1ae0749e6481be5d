"""A pair of detectors for every method of the package, for what holds for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from dense_kd import Distiller, KDMethod, PseudoLabels, Teacher, methods
from dense_kd.detectors import DenseDetector
from dense_kd.yacs_config import METHODS
from helpers.builders import (
    instances,
    tiny_atss,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.feature_networks import feature_teacher

SIDE = 64
"""Of the images, in pixels: the maps of five levels are 8, 4, 2, 1 and 1 cells wide."""
ALL = sorted(method.__name__ for method in METHODS.values())
"""Names of the methods of the package."""


class Pair(NamedTuple):
    """What a method is tried with.

    Attributes:
        build: of both detectors, see ``builders.py``; the teacher's towers are wider.
        options: of the method.
    """

    build: Callable[..., DenseDetector]
    options: dict[str, Any]


class Inside(NamedTuple):
    """The option ``method`` of FromTeacher, which is made anew for each distiller."""

    name: str
    options: dict[str, Any]


_USUAL = {"": Pair(tiny_gfl, {})}
_UNUSUAL: dict[str, dict[str, Pair]] = {
    "CrossKD": {
        "distributions": Pair(tiny_gfl, {"depth": 1}),
        "boxes": Pair(tiny_fcos, {"depth": 1, "loc_loss": "iou", "normalize": "quality"}),
        "quality": Pair(tiny_fcos, {"depth": 1, "quality_weight": 1.0}),
        "anchors": Pair(tiny_retinanet, {"depth": {"cls": 0, "bbox": 1}, "align_on": "pre_relu"}),
    },
    "DSI": {"": Pair(tiny_gfl, {"teacher": feature_teacher()})},
    "FGFI": {"": Pair(tiny_retinanet, {"warmup_iters": 0})},
    "FKD": {"": Pair(tiny_fcos, {})},
    "FRS": {"": Pair(tiny_retinanet, {"warmup_iters": 0})},
    "FitNet": {
        "": Pair(tiny_gfl, {}),
        "objects": Pair(tiny_fcos, {"region": "objects"}),
        "positives": Pair(tiny_retinanet, {"region": "positives"}),
    },
    "FromTeacher": {
        "": Pair(tiny_gfl, {"method": Inside("CrossKD", {"depth": 1})}),
        "features": Pair(tiny_fcos, {"method": Inside("FKD", {})}),
    },
    "GIBox": {"": Pair(tiny_retinanet, {})},
    "KD": {
        "": Pair(tiny_retinanet, {}),
        "distributions": Pair(tiny_gfl, {"region": "positives", "loc_loss": "kl"}),
    },
    "LD": {
        "": Pair(tiny_gfl, {}),
        "joint": Pair(
            functools.partial(tiny_distribution_retinanet, reg_max=8),
            {"vlr_excludes_positives": True, "joint_softmax": True},
        ),
    },
    "PGD": {
        "": Pair(tiny_gfl, {}),
        "two locations": Pair(tiny_fcos, {"topk": 2}),
        "density": Pair(tiny_retinanet, {"foreground": "kde"}),
        "released": Pair(tiny_fcos, {"compat": "released"}),
    },
    "PKD": {"": Pair(tiny_gfl, {}), "towers": Pair(tiny_fcos, {"taps": [["cls", 1], ["bbox", 2]]})},
    "TID": {"": Pair(tiny_gfl, {}), "atss": Pair(tiny_atss, {"loc_score": "atss"})},
}
PAIRS = {name: _UNUSUAL.get(name, _USUAL) for name in ALL}
"""{method: {variant: pair}}; a variant is a branch of the code with divisions of its own."""

VARIANTS = [(name, variant) for name, pairs in PAIRS.items() for variant in pairs]


def make_method(
    name: str, pair: Pair, make_teacher: Callable[[], DenseDetector], **options: Any
) -> KDMethod:
    """The method of a pair.

    Args:
        name: of it.
        pair: of :data:`PAIRS`.
        make_teacher: a detector for a method that brings one along.
        options: of the method, besides those of the pair.
    """
    given = {**pair.options, **options}
    if isinstance(given.get("method"), Inside):
        inside = given["method"]
        given["method"] = getattr(methods, inside.name)(**inside.options)
        given["teacher"] = Teacher(make_teacher(), None)
    return getattr(methods, name)(**given)


def teacher_of(model: Distiller) -> Teacher:
    """The detector that the method called "feature" learns from, if it learns from one."""
    own = model.kd.feature.teacher
    return own if isinstance(own, Teacher) else model.teacher


def every_method(test: Callable) -> Callable:
    """Parametrise a test with ``name`` and ``variant``."""
    ids = [" ".join(filter(None, both)) for both in VARIANTS]
    return pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=ids)(test)


def build(
    name: str,
    variant: str | None = None,
    pseudo_labels: PseudoLabels | None = None,
    **options: Any,
) -> Distiller:
    """A distiller of five levels with the one method, called "feature".

    Args:
        name: of the method.
        variant: of :data:`PAIRS`; the first by default.
        pseudo_labels: of the distiller.
        options: of the method, besides those of the pair.
    """
    pair = next(iter(PAIRS[name].values())) if variant is None else PAIRS[name][variant]
    student = pair.build(num_levels=5, width=4)
    make_teacher = functools.partial(pair.build, seed=1, num_levels=5, width=4, channels=24)
    method = make_method(name, pair, make_teacher, **options)
    return distill(student, make_teacher(), method, pseudo_labels=pseudo_labels)


def images_with(*boxes: list[list[float]]) -> list[dict[str, Any]]:
    """An image with random pixels for each list of its objects' boxes."""
    generator = torch.Generator().manual_seed(0)
    size = (SIDE, SIDE)
    return [
        {
            "image": torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8),
            "instances": instances(size, of_image, [i % 4 for i in range(len(of_image))]),
        }
        for of_image in boxes
    ]
