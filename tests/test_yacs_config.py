"""Distillation from detectron2's yacs configs."""

from __future__ import annotations

import ast
import functools
import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from dense_kd import (
    BCKD,
    CrossKD,
    DistillationError,
    Distiller,
    DistillFCOS,
    DistillRetinaNet,
    KDMethod,
    Teacher,
    add_dense_kd_config,
)
from dense_kd.config import get_config_file
from dense_kd.detectors import FCOS, RetinaNet
from dense_kd.yacs_config import METHODS, build_methods
from helpers.builders import batch

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


def other_values(method: type[KDMethod], option: str, default: Any) -> Iterator[Any]:
    """Values that an option may have besides its default, found by trying."""
    tried: list[Any] = []
    if isinstance(default, bool):
        tried = [not default]
    elif isinstance(default, str):
        with pytest.raises(ValueError) as error:
            method(**{option: "?"})
        tried = list(ast.literal_eval(str(error.value).partition("expected one of ")[2]))
    elif isinstance(default, int):
        tried = [default + 1, None, {"cls": 0, "bbox": 1}]
    elif isinstance(default, float):
        tried = [default / 2, 2 * default, default + 1, None]
    elif isinstance(default, tuple):
        tried = [(), ("neck",), (-1,)]
    elif default is None:
        tried = [0.0, 0.5, "by_name", {5: 0, 2: 1}]
    for value in tried:
        try:
            method(**{option: value})
        except ValueError:
            continue
        if value != default:
            yield value


def state(method: KDMethod) -> dict[str, Any]:
    """What the options made of a method."""
    return {k: v for k, v in vars(method).items() if not k.startswith("_")}


OTHERS = [
    pytest.param(name, option, value, id=f"{name}.{option}={value!r}")
    for name, method in METHODS.items()
    for option, parameter in inspect.signature(method).parameters.items()
    for value in other_values(method, option, parameter.default)
]


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


@pytest.mark.slow
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
    assert nodes.BCKD.CLASS_MAP is None and nodes.PGD.BETA is None


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


def test_a_mapping_may_stand_in_a_file_in_a_list_and_in_code(tmp_path):
    cfg = config(tmp_path, "DistillFCOS")
    cfg.DENSE_KD.METHODS = ["CROSSKD", "BCKD"]
    assert build_methods(cfg).crosskd.depth == {"cls": 3, "bbox": 3}
    file = tmp_path / "mapping.yaml"
    file.write_text(
        "DENSE_KD: {CROSSKD: {DEPTH: [[cls, 0], [bbox, 1]]}, BCKD: {CLASS_MAP: [[5, 0]]}}"
    )
    cfg.merge_from_file(str(file))
    methods = build_methods(cfg)
    assert methods.crosskd.depth == {"cls": 0, "bbox": 1} and methods.bckd.class_map == {5: 0}
    cfg.merge_from_list(["DENSE_KD.CROSSKD.DEPTH", "[['cls', 2], ['bbox', 1]]"])
    assert build_methods(cfg).crosskd.depth == {"cls": 2, "bbox": 1}
    cfg.merge_from_list(["DENSE_KD.CROSSKD.DEPTH", None, "DENSE_KD.BCKD.CLASS_MAP", None])
    cfg.merge_from_list(["DENSE_KD.BCKD.CLASS_MAP", "by_name"])
    methods = build_methods(cfg)
    assert methods.crosskd.depth["cls"] == 3 and methods.bckd.class_map == "by_name"
    cfg.DENSE_KD.CROSSKD.DEPTH = CfgNode({"cls": 1, "bbox": 0})
    assert build_methods(cfg).crosskd.depth == {"cls": 1, "bbox": 0}
    cfg.DENSE_KD.CROSSKD.DEPTH = [1, 2]
    with pytest.raises(DistillationError, match=r"CROSSKD.DEPTH = \[1, 2\]: expected pairs"):
        build_methods(cfg)


def test_a_value_may_go_to_none_and_back():
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    cfg.DENSE_KD.METHODS = ["PGD", "TID"]
    for value, beta in ((0.5, 0.5), (None, 0.04), (0.25, 0.25)):
        cfg.merge_from_list(["DENSE_KD.PGD.BETA", value])
        assert build_methods(cfg).pgd.beta == beta
    for value in (None, 0.5, None):
        cfg.merge_from_list(["DENSE_KD.TID.NMS_THRESH", value])
        assert build_methods(cfg).tid.nms_thresh == value
    cfg.merge_from_list(["DENSE_KD.PGD.ALPHA", None])
    with pytest.raises(DistillationError, match="DENSE_KD.PGD: alpha=None, .* expected weights"):
        build_methods(cfg)


@pytest.mark.parametrize(("name", "option", "value"), OTHERS)
def test_every_option_of_every_method_reaches_the_method(name, option, value):
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    listed = [list(pair) for pair in value.items()] if isinstance(value, dict) else value
    cfg.merge_from_list(
        ["DENSE_KD.METHODS", [name], f"DENSE_KD.{name}.{option.upper()}", f"{listed!r}"]
    )
    built = getattr(build_methods(cfg), name.lower())
    assert state(built) == state(METHODS[name](**{option: value})) != state(METHODS[name]())


def test_a_config_that_was_written_out_builds_the_same(tmp_path):
    cfg = config(tmp_path, "DistillFCOS")
    cfg.DENSE_KD.METHODS = sorted(METHODS)
    cfg.merge_from_list(["DENSE_KD.PGD.BRANCHES", "('neck',)", "DENSE_KD.TID.NMS_THRESH", "None"])
    cfg.DENSE_KD.CROSSKD.DEPTH = [["cls", 0], ["bbox", 1]]
    cfg.DENSE_KD.KD.CLASS_MAP = (("car", 3),)
    (tmp_path / "written.yaml").write_text(cfg.dump())
    read = get_cfg()
    add_dense_kd_config(read)
    read.merge_from_file(str(tmp_path / "written.yaml"))
    ours, theirs = build_methods(cfg), build_methods(read.clone())
    for name, method in ours.named_children():
        assert state(method) == state(getattr(theirs, name)), name


def test_every_option_of_teacher_and_distiller_has_a_key(tmp_path):
    nodes = config(tmp_path, "DistillFCOS").DENSE_KD
    for of, node in ((Teacher, nodes.TEACHER), (Distiller, nodes)):
        for option in inspect.signature(of).parameters:
            assert option.upper() in node or option in ("model", "student", "methods"), option
    cfg = config(tmp_path, "DistillFCOS", "DistillFCOS")
    cfg.merge_from_list(["DENSE_KD.TEACHER.PRECISION", "bfloat16", "DENSE_KD.INIT_STUDENT", True])
    model = build_model(cfg)
    assert model.teacher.precision == "bfloat16" and model.init_student
    cfg.DENSE_KD.TARGETS_FROM_TEACHER = True
    with pytest.raises(DistillationError, match="does not go by predictions"):  # nor RetinaNet's
        build_model(cfg)


def test_every_key_of_fcos_reaches_the_detector(tmp_path):
    cfg = config(tmp_path, "DistillFCOS")
    others = {
        "NUM_CLASSES": 7,
        "IN_FEATURES": ["p3", "p4", "p5"],
        "NUM_CONVS": 2,
        "NORM": "",
        "PRIOR_PROB": 0.25,
        "REG_MAX": 6,
        "CENTER_SAMPLING_RADIUS": None,
        "FOCAL_LOSS_ALPHA": 0.5,
        "FOCAL_LOSS_GAMMA": 1.5,
        "SCORE_THRESH_TEST": 0.125,
        "TOPK_CANDIDATES_TEST": 17,
        "NMS_THRESH_TEST": 0.375,
    }
    assert set(others) == set(cfg.MODEL.FCOS)
    cfg.MODEL.FCOS.merge_from_list([part for item in others.items() for part in item])
    model = FCOS(**FCOS.from_config(cfg))
    head = model.head
    found = {
        "NUM_CLASSES": model.num_classes,
        "IN_FEATURES": list(model.head_in_features),
        "NUM_CONVS": head.depth,
        "NORM": "".join(type(m).__name__ for m in head.cls_subnet if "Norm" in type(m).__name__),
        "PRIOR_PROB": head.cls_score.bias.sigmoid().mean().item(),
        "REG_MAX": head.reg_max,
        "CENTER_SAMPLING_RADIUS": model.assigner.center_sampling_radius,
        "FOCAL_LOSS_ALPHA": model.focal_loss_alpha,
        "FOCAL_LOSS_GAMMA": model.focal_loss_gamma,
        "SCORE_THRESH_TEST": model.test_score_thresh,
        "TOPK_CANDIDATES_TEST": model.test_topk_candidates,
        "NMS_THRESH_TEST": model.test_nms_thresh,
    }
    assert found.pop("PRIOR_PROB") == pytest.approx(others.pop("PRIOR_PROB"))
    assert found == others


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DENSE_KD.PGD.TOPKK", 3, "DENSE_KD.PGD has no key 'TOPKK'; expected one of .*'TOPK'"),
        ("DENSE_KD.BCKD.LOC_WIEGHT", 1.0, "has no key 'LOC_WIEGHT'; expected one of .*LOC_WEIGHT"),
        ("DENSE_KD.INIT_STUDNET", True, "DENSE_KD has no key 'INIT_STUDNET'.*'INIT_STUDENT'"),
        ("DENSE_KD.TEACHER.WEIGHT", "x", "DENSE_KD.TEACHER has no key 'WEIGHT'.*'WEIGHTS'"),
        ("MODEL.FCOS.NUM_CLASES", 3, "MODEL.FCOS has no key 'NUM_CLASES'.*'NUM_CLASSES'"),
        ("DENSE_KD.INIT_STUDENT", "no", "init_student='no'.*expected True or False"),
        ("DENSE_KD.PGD.BETA", "much", "DENSE_KD.PGD: .*beta='much'"),
        ("DENSE_KD.PGD.BETA", math.nan, "DENSE_KD.PGD: .*beta=nan"),
        ("DENSE_KD.PGD.BETA", -1.0, "DENSE_KD.PGD: .*beta=-1.0"),
        ("DENSE_KD.PGD.BRANCHES", "neck", "DENSE_KD.PGD: branches='neck'"),
        ("DENSE_KD.METHODS", "PGD", "DENSE_KD.METHODS = 'PGD': expected a list of names"),
        ("DENSE_KD.METHODS", ["PDG"], "DENSE_KD.METHODS names 'PDG', expected one of .*'PGD'"),
        ("DENSE_KD.TEACHER.WEIGHTS", None, "the teacher has no weights"),
        ("DENSE_KD.TEACHER.CONFIG_FILE", None, "DENSE_KD.TEACHER.CONFIG_FILE = '' does not exist"),
        ("DENSE_KD.TEACHER.PRECISION", "fp8", "precision='fp8': expected one of"),
    ],
)
def test_a_key_or_value_that_is_wrong_is_named_before_anything_is_trained(
    tmp_path, key, value, message
):
    """As set in code; merging a list or a file, yacs itself refuses keys that are not there."""
    cfg = config(tmp_path, "DistillFCOS", "DistillFCOS")
    cfg.DENSE_KD.METHODS = ["PGD"]
    node, _, name = key.rpartition(".")
    setattr(functools.reduce(getattr, node.split("."), cfg), name, value)
    with pytest.raises(ValueError, match=message):
        build_model(cfg)


@pytest.mark.parametrize("value", ["much", "[1.0]", "True", "{'a': 1}"])
def test_a_value_of_another_type_than_the_default_is_refused_when_merged(value):
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    with pytest.raises(ValueError, match="Type mismatch .* DENSE_KD.PGD.ALPHA"):
        cfg.merge_from_list(["DENSE_KD.PGD.ALPHA", value])


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
    (tmp_path / "teacher.py").write_text("detector = {}")
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = str(tmp_path / "teacher.py")
    with pytest.raises(DistillationError, match=r"has no `model`; .* this has \['detector'\]"):
        build_model(cfg)
    cfg.DENSE_KD.TEACHER.CONFIG_FILE = "nowhere.yaml"
    with pytest.raises(DistillationError, match="'nowhere.yaml' does not exist"):
        build_model(cfg)
