"""Distillation in detectron2's yacs configs."""

from __future__ import annotations

import inspect
import os

from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate

from . import methods
from .detectors import FCOS, DenseDetector, RetinaNet
from .methods import DistillationError, KDMethod, MethodSet
from .teacher import Teacher

_DETECTORS: dict[str, type[DenseDetector]] = {
    "RetinaNet": RetinaNet,
    "DistillRetinaNet": RetinaNet,
    "DistillFCOS": FCOS,
    "FCOS": FCOS,
}

METHODS: dict[str, type[KDMethod]] = {
    name.upper(): value
    for name, value in vars(methods).items()
    if isinstance(value, type) and issubclass(value, KDMethod) and value is not KDMethod
}
"""Every method of the package, under its name in ``DENSE_KD.METHODS``."""


def add_dense_kd_config(cfg: CfgNode) -> None:
    """Add ``cfg.DENSE_KD`` (teacher and methods) and ``cfg.MODEL.FCOS`` to a detectron2 config.

    Then set ``MODEL.META_ARCHITECTURE`` to ``DistillRetinaNet`` or ``DistillFCOS``,
    ``DENSE_KD.TEACHER.CONFIG_FILE`` and ``.WEIGHTS``, and ``DENSE_KD.METHODS``.
    """
    cfg.DENSE_KD = CfgNode()
    cfg.DENSE_KD.TEACHER = CfgNode()
    # A yacs .yaml of a RetinaNet or FCOS, or a LazyConfig .py with `model`.
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = ""
    cfg.DENSE_KD.TEACHER.WEIGHTS = ""
    # Whether the student starts with the teacher's FPN and head.
    cfg.DENSE_KD.INIT_STUDENT = False
    # Names of the methods to combine; each has a node of options below.
    cfg.DENSE_KD.METHODS = ["BCKD"]
    for name, method in METHODS.items():
        cfg.DENSE_KD[name] = _options(method)

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


def _options(method: type[KDMethod]) -> CfgNode:
    """The arguments of ``method``, in capitals, with their defaults; not those that are None."""
    parameters = inspect.signature(method).parameters
    return CfgNode({n.upper(): p.default for n, p in parameters.items() if p.default is not None})


def build_methods(cfg: CfgNode) -> MethodSet:
    """The methods that ``cfg.DENSE_KD.METHODS`` names, with the options of their nodes."""
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
        options = {key.lower(): value for key, value in cfg.DENSE_KD[name].items()}
        methods[name.lower()] = METHODS[name](**options)
    return MethodSet(**methods)


def build_teacher(cfg: CfgNode) -> Teacher:
    """The teacher of ``cfg.DENSE_KD.TEACHER``; its weights are not read yet."""
    config_file, weights = cfg.DENSE_KD.TEACHER.CONFIG_FILE, cfg.DENSE_KD.TEACHER.WEIGHTS
    if not os.path.isfile(config_file):
        raise DistillationError(
            f"DENSE_KD.TEACHER.CONFIG_FILE = {config_file!r} does not exist; expected the config "
            "of the teacher, a yacs .yaml or a LazyConfig .py with `model`"
        )
    if config_file.endswith(".py"):
        return Teacher(instantiate(LazyConfig.load(config_file).model), weights)
    teacher_cfg = get_cfg()
    add_dense_kd_config(teacher_cfg)
    teacher_cfg.merge_from_file(config_file)
    name = teacher_cfg.MODEL.META_ARCHITECTURE
    if name not in _DETECTORS:
        raise DistillationError(
            f"{config_file} has MODEL.META_ARCHITECTURE = {name!r}, expected one of "
            f"{sorted(_DETECTORS)}"
        )
    return Teacher(_DETECTORS[name](**_DETECTORS[name].from_config(teacher_cfg)), weights)
