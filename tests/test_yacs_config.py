"""Distillation from detectron2's yacs configs."""

from __future__ import annotations

import pytest
import torch
from builders import batch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from dense_kd import (
    BCKD,
    CrossKD,
    DistillationError,
    DistillFCOS,
    DistillRetinaNet,
    add_dense_kd_config,
)
from dense_kd.config import get_config_file
from dense_kd.detectors import FCOS, RetinaNet

SMALL = """
MODEL:
  META_ARCHITECTURE: {architecture}
  DEVICE: cpu
  BACKBONE: {{NAME: build_retinanet_resnet_fpn_backbone}}
  RESNETS: {{DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res3, res4, res5]}}
  FPN: {{IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 32}}
  RETINANET: {{NUM_CLASSES: 4, NUM_CONVS: 1}}
  ANCHOR_GENERATOR: {{SIZES: [[32], [64], [128], [256], [512]]}}
"""


def config(tmp_path, architecture: str, teacher: str = "RetinaNet") -> CfgNode:
    """A small student, and a teacher's config file beside it."""
    teacher_file = tmp_path / "teacher.yaml"
    text = SMALL.format(architecture=teacher)
    if "FCOS" in teacher:
        text += "  FCOS: {NUM_CLASSES: 4, NUM_CONVS: 1}\n"
    teacher_file.write_text(text)
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    (tmp_path / "student.yaml").write_text(SMALL.format(architecture=architecture))
    cfg.merge_from_file(str(tmp_path / "student.yaml"))
    cfg.MODEL.FCOS.NUM_CLASSES = 4
    cfg.MODEL.FCOS.NUM_CONVS = 1
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = str(teacher_file)
    cfg.DENSE_KD.TEACHER.WEIGHTS = str(tmp_path / "teacher.pth")
    return cfg


@pytest.mark.parametrize(
    "architecture, teacher, model_class, student_class",
    [
        ("DistillRetinaNet", "RetinaNet", DistillRetinaNet, RetinaNet),
        ("DistillFCOS", "DistillFCOS", DistillFCOS, FCOS),
    ],
)
def test_build_model_gives_a_distiller_that_trains(
    tmp_path, architecture, teacher, model_class, student_class
):
    cfg = config(tmp_path, architecture, teacher)
    cfg.DENSE_KD.BCKD.LOC_WEIGHT = 2.0
    model = build_model(cfg)
    assert type(model) is model_class and type(model.student) is student_class
    assert isinstance(model.kd.bckd, BCKD) and model.kd.bckd.loc_weight == 2.0
    torch.save({"model": model.teacher.model.state_dict()}, tmp_path / "teacher.pth")
    losses = model(batch())
    assert {"kd_bckd_loss_cls", "kd_bckd_loss_loc"} < set(losses)
    sum(losses.values()).backward()


def test_kd_and_ld_have_options_too(tmp_path):
    cfg = config(tmp_path, "DistillFCOS", "DistillFCOS")
    cfg.merge_from_list(["DENSE_KD.METHODS", ["KD", "LD"], "MODEL.FCOS.REG_MAX", "8"])
    teacher_file = tmp_path / "teacher.yaml"
    text = teacher_file.read_text()
    teacher_file.write_text(text.replace("FCOS: {", "FCOS: {REG_MAX: 8, "))
    cfg.DENSE_KD.KD.CLS_LOSS = "softmax"
    cfg.DENSE_KD.LD.MAIN_WEIGHT = 0.5
    model = build_model(cfg)
    assert model.student.head.reg_max == model.teacher.model.head.reg_max == 8
    assert model.kd.kd.cls_loss == "softmax" and model.kd.ld.main_weight == 0.5
    torch.save({"model": model.teacher.model.state_dict()}, tmp_path / "teacher.pth")
    losses = model(batch())
    terms = {"kd_kd_loss_cls", "kd_kd_loss_loc", "kd_ld_loss_main", "kd_ld_loss_vlr"}
    assert terms | {"kd_ld_loss_cls", "loss_fcos_dfl"} < set(losses)
    sum(losses.values()).backward()


def test_crosskd_takes_the_options_of_its_node_and_may_stand_beside_bckd(tmp_path):
    cfg = config(tmp_path, "DistillFCOS", "RetinaNet")
    cfg.DENSE_KD.METHODS = ["BCKD", "CROSSKD"]
    with pytest.raises(DistillationError, match="anchors per location"):  # BCKD compares them
        build_model(cfg)
    cfg.DENSE_KD.METHODS = ["CROSSKD"]
    with pytest.raises(DistillationError, match="depth=3 .* give depth=1 or less"):
        build_model(cfg)
    options = {
        "DEPTH": 1, "CLS_WEIGHT": 0.4, "LOC_WEIGHT": 0.75, "LOC_LOSS": "iou", "ALIGN": False,
    }  # fmt: skip
    cfg.DENSE_KD.CROSSKD.merge_from_list([part for item in options.items() for part in item])
    model = build_model(cfg)
    assert isinstance(model.kd.crosskd, CrossKD)
    assert model.kd.crosskd.depth == {"cls": 1, "bbox": 1}
    for name in ("cls_weight", "loc_weight", "loc_loss", "align"):
        assert getattr(model.kd.crosskd, name) == options[name.upper()]
    torch.save({"model": model.teacher.model.state_dict()}, tmp_path / "teacher.pth")
    losses = model(batch())
    assert {"kd_crosskd_loss_cls", "kd_crosskd_loss_loc"} < set(losses)
    sum(losses.values()).backward()


def test_the_options_of_a_method_are_its_arguments_in_capitals(tmp_path):
    nodes = config(tmp_path, "DistillFCOS").DENSE_KD
    assert nodes.LD.VLR_REGION == "iof" and nodes.LD.MAIN_WEIGHT == 0.25
    assert nodes.CROSSKD.ALIGN_ON == "post_relu" and nodes.KD.CLS_LOSS == "binary"
    assert nodes.TID.NMS_THRESH == 0.6 and nodes.TID.TASKS == "both"
    assert nodes.BCKD.WARMUP_ITERS == 0 and nodes.PKD.OMITTED_LEVELS == ()
    assert nodes.FGFI.WARMUP_ITERS == 400 and nodes.FRS.WARMUP_ITERS == 500
    assert nodes.FITNET.REGION == "all" and nodes.GIBOX.TOPK == 10
    assert nodes.DEFEAT.OBJECT_WEIGHT == 4.0 and nodes.FKD.TEMPERATURE == 0.5
    assert nodes.PGD.ALPHA == 0.08 and nodes.PGD.COMPAT == "corrected"
    assert "CLASS_MAP" not in nodes.BCKD  # None is no value of a yacs config


def test_methods_that_compare_features_take_their_options_from_their_nodes(tmp_path):
    cfg = config(tmp_path, "DistillFCOS", "RetinaNet")
    cfg.DENSE_KD.METHODS = ["PKD", "MGD", "FGD"]
    cfg.DENSE_KD.FGD.TEMPERATURE = 0.8
    cfg.DENSE_KD.MGD.MASKED_RATIO = 0.5
    cfg.merge_from_list(["DENSE_KD.PKD.OMITTED_LEVELS", "(-1,)", "DENSE_KD.PKD.WEIGHT", "10.0"])
    methods = build_model(cfg).kd
    assert methods.pkd.levels == [0, 1, 2, 3] and methods.pkd.weight == 10.0
    assert methods.fgd.temperature == 0.8
    assert methods.mgd.masked_ratio == 0.5


def test_the_student_may_inherit_from_the_teacher(tmp_path):
    cfg = config(tmp_path, "DistillRetinaNet")
    assert not build_model(cfg).init_student
    cfg.DENSE_KD.INIT_STUDENT = True
    assert build_model(cfg).init_student


def test_the_teacher_may_be_a_lazy_config(tmp_path):
    cfg = config(tmp_path, "DistillFCOS")
    cfg.MODEL.FCOS.NUM_CLASSES = 5
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = get_config_file("quickstart/teacher.py")
    model = build_model(cfg)
    assert isinstance(model.teacher.model, FCOS)
    assert model.teacher.weights == str(tmp_path / "teacher.pth")


@pytest.mark.parametrize(
    "methods, message",
    [([], "no method"), (["BCKD", "BCKD"], "'BCKD' twice"), (["LDX"], r"'LDX', expected one of")],
)
def test_methods_that_cannot_be_built_are_an_error(tmp_path, methods, message):
    cfg = config(tmp_path, "DistillRetinaNet")
    cfg.DENSE_KD.METHODS = methods
    with pytest.raises(DistillationError, match=message):
        build_model(cfg)


def test_a_teacher_config_that_does_not_exist_or_is_no_dense_detector_is_an_error(tmp_path):
    cfg = config(tmp_path, "DistillRetinaNet", teacher="GeneralizedRCNN")
    with pytest.raises(DistillationError, match="GeneralizedRCNN"):
        build_model(cfg)
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = "nowhere.yaml"
    with pytest.raises(DistillationError, match="'nowhere.yaml' does not exist"):
        build_model(cfg)
