"""The rows of TID's tables: each has its config, with the options and the AP of the row."""

from __future__ import annotations

import inspect
import re

import pytest

from dense_kd import TID
from helpers.configs import ROOT, load

R50 = ("gfl/r50_1x", "gfl/r101_2x_ms")
R18 = ("gfl/r18_1x", "gfl/r101_2x_ms")
ATSS_R50 = ("atss/r50_1x", "atss/r101_1x")
VOC_R50 = ("gfl/voc_r50_1x", "gfl/voc_r101_1x")
ROWS = [  # config, student and teacher, TID's options, AP without and with the method
    ("tid/gfl_r101_r50_1x", R50, {}, "40.0 -> 42.0", "Table 1"),
    ("fitnet/gfl_r101_r50_1x", R50, {}, "40.0 -> 41.2", "Table 1"),
    ("fgfi/gfl_r101_r50_1x", R50, {}, "40.0 -> 41.7", "Table 1"),
    ("defeat/gfl_r101_r50_1x", R50, {}, "40.0 -> 41.3", "Table 1"),
    ("gibox/gfl_r101_r50_1x", R50, {}, "40.0 -> 41.7", "Table 1"),
    ("tid/gfl_r101_r18_1x", R18, {}, "28.2 -> 29.4", "Table 1"),
    ("fgfi/gfl_r101_r18_1x", R18, {}, "28.2 -> 28.5", "Table 1"),
    ("defeat/gfl_r101_r18_1x", R18, {}, "28.2 -> 28.9", "Table 1"),
    ("tid/atss_r101_r50_1x", ATSS_R50, {}, "40.5 -> 41.5", "Table 1"),
    ("fgfi/atss_r101_r50_1x", ATSS_R50, {}, "40.5 -> 41.2", "Table 1"),
    ("gibox/atss_r101_r50_1x", ATSS_R50, {}, "40.5 -> 41.4", "Table 1"),
    ("tid/voc_gfl_r101_r50_1x", VOC_R50, {}, "76.4 -> 78.5", "Table 2"),
    ("tid/gfl_r101_r50_cls_1x", R50, {"tasks": "cls"}, "40.1 -> 40.9", "Table 3"),
    ("tid/gfl_r101_r50_loc_1x", R50, {"tasks": "loc"}, "40.1 -> 40.9", "Table 3"),
    ("tid/gfl_r101_r50_iou_1x", R50, {"loc_score": "iou"}, "40.9", "Table 4"),
    ("tid/gfl_r101_r50_weak_1x", R50, {"areas": "weak"}, "40.1 -> 41.8", "Table 5"),
    ("tid/gfl_r101_r50_key_1x", R50, {"areas": "key"}, "40.1 -> 41.6", "Table 5"),
]


@pytest.mark.parametrize(("name", "detectors", "options", "ap", "table"), ROWS)
def test_a_row_of_the_paper_has_its_config(name, detectors, options, ap, table):
    path = ROOT / f"{name}.py"
    cfg = load(f"{name}.py")
    docstring = " ".join(re.match(r'"""(.*?)"""', path.read_text(), re.DOTALL)[1].split())
    assert f"{ap} {'mAP' if 'voc' in name else 'AP'}" in docstring and table in docstring
    (method,) = (node for key, node in cfg.model.methods.items() if key != "_target_")
    target = method._target_  # a class or its path
    method_name = getattr(target, "__name__", target).rsplit(".", 1)[-1]
    assert method_name.lower() == name.split("/")[0]
    if name.startswith("tid/"):
        defaults = inspect.signature(TID).parameters
        set_ = {k: v for k, v in method.items() if k != "_target_" and v != defaults[k].default}
        assert set_ == {"normalize": "teacher_variance", **options}
    student, teacher = (load(f"{detector}.py").model for detector in detectors)
    assert cfg.model.student == student and cfg.model.teacher.model == teacher


def test_every_config_of_tid_is_a_row():
    names = {f"tid/{path.stem}" for path in (ROOT / "tid").glob("*.py")}
    assert names == {name for name, *_ in ROWS if name.startswith("tid/")}
