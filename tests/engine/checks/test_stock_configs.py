"""What detectron2's own configs do is right; configs around them are checked, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from dense_kd import BCKD, Distiller, MethodSet, Teacher, from_detectron2, get_config
from dense_kd.engine import RunError, check_run

ROOT = Path(model_zoo.__file__).parent / "configs"
STOCK = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("*/*.py")
    if path.parent.name not in ("common", "new_baselines")
)
LACKING = ("does not exist", "there is no GPU here")


def problems(cfg) -> list[str]:
    """But for those of this machine."""
    try:
        check_run(cfg, "train")
    except RunError as error:
        return [p for p in error.problems if not any(text in p for text in LACKING)]
    return []


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_config_passes(name):
    assert problems(LazyConfig.load(str(ROOT / name))) == []


def test_a_distiller_of_a_stock_config_passes_and_a_slip_in_it_is_found():
    cfg = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
    cfg.model = L(Distiller)(
        student=from_detectron2(cfg.model),
        teacher=L(Teacher)(
            model=get_config("retinanet/r101_2x_ms.py").model, weights="teacher.pth"
        ),
        methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
    )
    assert problems(cfg) == []
    cfg.model.methods.bckd.loc_wieght = 2
    cfg.model.student.head.num_anchor = 9
    found = problems(cfg)
    assert len(found) == 2
    assert "mean loc_weight" in found[1] and "mean num_anchors" in found[0]
