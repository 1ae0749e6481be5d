"""Distillation in detectron2's yacs configs."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Collection, Mapping
from typing import Any

from detectron2.config import CfgNode, LazyConfig, configurable, get_cfg, instantiate
from detectron2.modeling import META_ARCH_REGISTRY

from .detectors import FCOS, RetinaNet
from .distiller import Distiller
from .methods import Balance, DistillationError, KDMethod, MethodSet, method_classes
from .teacher import Teacher

_DETECTORS: dict[str, type[RetinaNet] | type[FCOS]] = {
    "RetinaNet": RetinaNet,
    "DistillRetinaNet": RetinaNet,
    "DistillFCOS": FCOS,
    "FCOS": FCOS,
}

_PARTS = ("student", "teacher", "methods")
"""Arguments of the Distiller that are built."""

METHODS: dict[str, type[KDMethod]] = {
    name.upper(): value for name, value in method_classes().items()
}
"""Every method of the package, under its name in ``DENSE_KD.METHODS``."""


def add_dense_kd_config(cfg: CfgNode) -> None:
    """Add ``cfg.DENSE_KD`` (teacher and methods) and ``cfg.MODEL.FCOS`` to a detectron2 config.

    Then set ``MODEL.META_ARCHITECTURE`` to ``DistillRetinaNet`` or ``DistillFCOS``,
    ``DENSE_KD.TEACHER.CONFIG_FILE`` and ``.WEIGHTS``, and ``DENSE_KD.METHODS``.

    Keys are arguments in capitals. yacs only takes values of the type of the default (10.0, not
    10, for a number with a fraction), or None, or any where the default is None. An option that
    may be a mapping is such: None is the argument's default, and a mapping is a list of pairs,
    ``[[cls, 0], [bbox, 1]]`` in a file and ``"[['cls', 0], ['bbox', 1]]"`` on the command line.
    """
    cfg.DENSE_KD = CfgNode()
    # CONFIG_FILE: a yacs .yaml of a RetinaNet or FCOS, or a LazyConfig .py with `model`.
    cfg.DENSE_KD.TEACHER = CfgNode(
        {"CONFIG_FILE": "", **_defaults(Teacher, but=("model",)), "WEIGHTS": ""}
    )
    # INIT_STUDENT: whether the student starts with the teacher's FPN and head.
    for key, value in _defaults(Distiller, but=_PARTS).items():
        cfg.DENSE_KD[key] = value
    # Names of the methods to combine; each has a node of options below.
    cfg.DENSE_KD.METHODS = ["BCKD"]
    for name, method in METHODS.items():
        cfg.DENSE_KD[name] = CfgNode(_defaults(method))
    # Weights by gradient share, see dense_kd.methods.Balance.
    cfg.DENSE_KD.BALANCE = CfgNode({"ENABLED": False, **_defaults(Balance)})

    cfg.MODEL.FCOS = CfgNode()
    cfg.MODEL.FCOS.NUM_CLASSES = 80
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.FCOS.NUM_CONVS = 4
    cfg.MODEL.FCOS.NORM = "GN"
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    # A number: boxes are distributions over the distances 0 to it, which LD needs.
    cfg.MODEL.FCOS.REG_MAX = None
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    cfg.MODEL.FCOS.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.FCOS.FOCAL_LOSS_GAMMA = 2.0
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.2
    cfg.MODEL.FCOS.TOPK_CANDIDATES_TEST = 1000
    cfg.MODEL.FCOS.NMS_THRESH_TEST = 0.6


def _defaults(of: type, but: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a constructor, in capitals, with their defaults; None where there is none,
    or where the argument may be a mapping, which yacs takes for no other default."""
    return {
        name.upper(): None
        if "Mapping" in parameter.annotation or parameter.default is parameter.empty
        else parameter.default
        for name, parameter in inspect.signature(of).parameters.items()
        if name not in but
    }


def _options(node: CfgNode, of: type, where: str, but: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of the constructor of ``of`` that ``node``, which is called ``where``, sets."""
    found = {}
    for key, default in _defaults(of, but).items():
        value = node[key]
        if default is None and isinstance(value, (list, tuple, Mapping)):
            value = _mapping(value, f"{where}.{key}")
        if default is not None or value is not None:
            found[key.lower()] = value
    return found


def _mapping(pairs: Any, where: str) -> dict[Any, Any]:
    try:
        return dict(pairs)
    except (TypeError, ValueError):
        raise DistillationError(
            f"{where} = {pairs!r}: expected pairs, as in [['cls', 0], ['bbox', 1]]"
        ) from None


def _check_keys(node: CfgNode, known: CfgNode, where: str) -> None:
    for key, value in node.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or sorted(known)
            raise DistillationError(f"{where} has no key {key!r}; expected one of {near}")
        if isinstance(known[key], CfgNode):
            _check_keys(value, known[key], f"{where}.{key}")


def build_parts(cfg: CfgNode) -> dict[str, Any]:
    """What a Distiller is built from, besides the student.

    Raises:
        DistillationError: a key that is not known was set, or an option has a value that it may
            not have; both name the key.
    """
    known = get_cfg()
    add_dense_kd_config(known)
    _check_keys(cfg.DENSE_KD, known.DENSE_KD, "DENSE_KD")
    _check_keys(cfg.MODEL.FCOS, known.MODEL.FCOS, "MODEL.FCOS")
    return {
        "teacher": build_teacher(cfg),
        "methods": build_methods(cfg),
        **_options(cfg.DENSE_KD, Distiller, "DENSE_KD", but=_PARTS),
    }


def build_methods(cfg: CfgNode) -> MethodSet:
    """The methods that ``cfg.DENSE_KD.METHODS`` names, with the options of their nodes."""
    if isinstance(cfg.DENSE_KD.METHODS, str):
        raise DistillationError(
            f"DENSE_KD.METHODS = {cfg.DENSE_KD.METHODS!r}: expected a list of names"
        )
    methods: dict[str, KDMethod] = {}
    for name in cfg.DENSE_KD.METHODS:
        if name not in METHODS:
            raise DistillationError(
                f"DENSE_KD.METHODS names {name!r}, expected one of {sorted(METHODS)}"
            )
        if name.lower() in methods:
            raise DistillationError(
                f"DENSE_KD.METHODS = {cfg.DENSE_KD.METHODS} names {name!r} twice; "
                "name each method once"
            )
        where = f"DENSE_KD.{name}"
        options = _options(cfg.DENSE_KD[name], METHODS[name], where)
        try:
            methods[name.lower()] = METHODS[name](**options)
        except ValueError as error:
            raise DistillationError(f"{where}: {error}") from None
    node, where = cfg.DENSE_KD.BALANCE, "DENSE_KD.BALANCE"
    try:
        balance = Balance(**_options(node, Balance, where)) if node.ENABLED else None
        return MethodSet(balance=balance, **methods)
    except ValueError as error:
        raise DistillationError(f"{where}: {error}") from None


def build_teacher(cfg: CfgNode) -> Teacher:
    """The teacher of ``cfg.DENSE_KD.TEACHER``; its weights are not read yet."""
    node = cfg.DENSE_KD.TEACHER
    config_file, weights = node.CONFIG_FILE or "", node.WEIGHTS or ""
    options = _options(node, Teacher, "DENSE_KD.TEACHER", but=("model", "weights"))
    if not os.path.isfile(config_file):
        raise DistillationError(
            f"DENSE_KD.TEACHER.CONFIG_FILE = {config_file!r} does not exist; expected the config "
            "of the teacher, a yacs .yaml or a LazyConfig .py with `model`"
        )
    if config_file.endswith(".py"):
        config = LazyConfig.load(config_file)
        if "model" not in config:
            raise DistillationError(
                f"DENSE_KD.TEACHER.CONFIG_FILE = {config_file!r} has no `model`; expected a "
                f"LazyConfig with one, and this has {sorted(config)}"
            )
        return Teacher(instantiate(config.model), weights, **options)
    teacher_cfg = get_cfg()
    add_dense_kd_config(teacher_cfg)
    teacher_cfg.merge_from_file(config_file)
    name = teacher_cfg.MODEL.META_ARCHITECTURE
    if name not in _DETECTORS:
        raise DistillationError(
            f"{config_file} has MODEL.META_ARCHITECTURE = {name!r}, expected one of "
            f"{sorted(_DETECTORS)}"
        )
    model = _DETECTORS[name](**_DETECTORS[name].from_config(teacher_cfg))
    return Teacher(model, weights, **options)


class _ConfigurableDistiller(Distiller):
    """A Distiller that is built from a yacs config with ``add_dense_kd_config``'s keys."""

    student_class: type[RetinaNet] | type[FCOS]

    @configurable
    def __init__(self, **parts: Any):
        super().__init__(**parts)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = build_parts(cfg)
        return {"student": cls.student_class(**cls.student_class.from_config(cfg)), **parts}


@META_ARCH_REGISTRY.register()
class DistillRetinaNet(_ConfigurableDistiller):
    """``MODEL.META_ARCHITECTURE: DistillRetinaNet``; the student is described by the same keys as
    detectron2's RetinaNet."""

    student_class = RetinaNet


@META_ARCH_REGISTRY.register()
class DistillFCOS(_ConfigurableDistiller):
    """``MODEL.META_ARCHITECTURE: DistillFCOS``; the student is described by ``MODEL.FCOS``."""

    student_class = FCOS
