"""Distillation in detectron2's yacs configs."""

from __future__ import annotations

import os

from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate

from .detectors import FCOS, DenseDetector, RetinaNet
from .methods import BCKD, KD, LD, CrossKD, DistillationError, KDMethod, MethodSet
from .teacher import Teacher

_DETECTORS: dict[str, type[DenseDetector]] = {
    "RetinaNet": RetinaNet,
    "DistillRetinaNet": RetinaNet,
    "DistillFCOS": FCOS,
    "FCOS": FCOS,
}


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
    cfg.DENSE_KD.BCKD = CfgNode()
    cfg.DENSE_KD.BCKD.CLS_WEIGHT = 1.0
    cfg.DENSE_KD.BCKD.LOC_WEIGHT = 4.0
    cfg.DENSE_KD.BCKD.LOC_LOSS = "giou"
    cfg.DENSE_KD.BCKD.NORMALIZE = "positives"
    cfg.DENSE_KD.BCKD.SKIP_EMPTY_LEVELS = True
    cfg.DENSE_KD.BCKD.MASK_IGNORED = True
    cfg.DENSE_KD.KD = CfgNode()
    cfg.DENSE_KD.KD.CLS_WEIGHT = 1.0
    cfg.DENSE_KD.KD.LOC_WEIGHT = 1.0
    cfg.DENSE_KD.KD.CLS_LOSS = "binary"
    cfg.DENSE_KD.KD.LOC_LOSS = "giou"
    cfg.DENSE_KD.KD.TEMPERATURE = 1.0
    cfg.DENSE_KD.KD.REGION = "all"
    cfg.DENSE_KD.KD.NORMALIZE = "positives"
    cfg.DENSE_KD.KD.ANCHORS = "same"
    cfg.DENSE_KD.LD = CfgNode()
    cfg.DENSE_KD.LD.MAIN_WEIGHT = 0.25
    cfg.DENSE_KD.LD.VLR_WEIGHT = 0.0625
    cfg.DENSE_KD.LD.CLS_WEIGHT = 10.0
    cfg.DENSE_KD.LD.LOC_TEMPERATURE = 10.0
    cfg.DENSE_KD.LD.CLS_TEMPERATURE = 2.0
    cfg.DENSE_KD.LD.VLR_REGION = "iof"
    cfg.DENSE_KD.LD.VLR_WEIGHTING = "iou"
    cfg.DENSE_KD.LD.VLR_EXCLUDES_POSITIVES = False
    cfg.DENSE_KD.LD.JOINT_SOFTMAX = False
    cfg.DENSE_KD.LD.NORMALIZE = "none"
    cfg.DENSE_KD.LD.PADDING_MULTIPLE = 32
    cfg.DENSE_KD.CROSSKD = CfgNode()
    cfg.DENSE_KD.CROSSKD.DEPTH = 3  # of both branches
    cfg.DENSE_KD.CROSSKD.CLS_WEIGHT = 1.0
    cfg.DENSE_KD.CROSSKD.LOC_WEIGHT = 1.0
    cfg.DENSE_KD.CROSSKD.QUALITY_WEIGHT = 0.0
    cfg.DENSE_KD.CROSSKD.LOC_LOSS = "auto"
    cfg.DENSE_KD.CROSSKD.LOC_WEIGHTING = "score"
    cfg.DENSE_KD.CROSSKD.NORMALIZE = "positives"
    cfg.DENSE_KD.CROSSKD.ALIGN = True
    cfg.DENSE_KD.CROSSKD.ALIGN_ON = "post_relu"

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


_METHODS: dict[str, type[KDMethod]] = {"BCKD": BCKD, "CROSSKD": CrossKD, "KD": KD, "LD": LD}


def build_methods(cfg: CfgNode) -> MethodSet:
    """The methods that ``cfg.DENSE_KD.METHODS`` names, with the options of their nodes."""
    methods: dict[str, KDMethod] = {}
    for name in cfg.DENSE_KD.METHODS:
        if name not in _METHODS:
            raise DistillationError(
                f"DENSE_KD.METHODS names {name!r}, expected one of {sorted(_METHODS)}"
            )
        if name.lower() in methods:
            raise DistillationError(
                f"DENSE_KD.METHODS = {cfg.DENSE_KD.METHODS} names {name!r} twice; "
                "name each method once"
            )
        options = {key.lower(): value for key, value in cfg.DENSE_KD[name].items()}
        methods[name.lower()] = _METHODS[name](**options)
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
