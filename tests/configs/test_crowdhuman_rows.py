"""PGD's table of CrowdHuman, row by row as the paper prints it, and the config of each."""

from __future__ import annotations

import pytest
from detectron2.config import instantiate

from dense_kd import PGD
from helpers.configs import ROOT, load

STUDENT, TEACHER = "ddod/crowdhuman_r50_1x.py", "ddod/crowdhuman_r101_3x_ms.py"
PAIR = "crowdhuman_ddod_r101_r50_1x.py"
ROWS = {
    "fkd": (89.1, 44.3, 80.0),
    "defeat": (89.1, 44.2, 79.9),
    "frs": (89.2, 44.1, 80.3),
    "fgfi": (89.2, 43.8, 80.3),
    "fgd": (89.3, 43.1, 80.4),
    "pgd": (90.0, 42.8, 80.7),
}
"""AP, MR and JI; those of the student alone are 88.0, 46.0 and 79.0."""


def docstring(config: str) -> str:
    text = (ROOT / config).read_text().split('"""')[1]
    return " ".join(text.split())


def test_every_config_of_the_dataset_is_of_the_table():
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("crowdhuman_*.py")}
    assert found == {STUDENT, TEACHER, *(f"{method}/{PAIR}" for method in ROWS)}


@pytest.mark.parametrize("method", ROWS)
def test_a_row_says_its_table_and_numbers(method: str):
    ap, mr, ji = ROWS[method]
    numbers = f": 88.0 -> {ap} AP, MR 46.0 -> {mr}, JI 79.0 -> {ji}."
    assert "PGD, Table 3," in docstring(f"{method}/{PAIR}")
    assert numbers in docstring(f"{method}/{PAIR}")


@pytest.mark.parametrize(
    ("config", "numbers"),
    [(STUDENT, "88.0 AP, 46.0 MR, 79.0 JI"), (TEACHER, "90.2 AP, 41.4 MR, 81.4 JI")],
)
def test_a_detector_alone_says_its_numbers(config: str, numbers: str):
    assert f"({numbers} in its Table 3)" in docstring(config)


@pytest.mark.parametrize("method", ROWS)
def test_a_row_has_the_papers_student_and_teacher_and_inherits(method: str):
    cfg, student = load(f"{method}/{PAIR}"), load(STUDENT)
    assert cfg.model.student == student.model
    assert cfg.model.teacher.model == load(TEACHER).model
    assert cfg.model.teacher.weights == "output/ddod/crowdhuman_r101_3x_ms/model_final.pth"
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert cfg[part] == student[part]
    assert set(cfg.model.methods) == {"_target_", method}
    assert cfg.model.init_student and cfg.model.targets_from_teacher == (method == "pgd")


def test_pgd_has_the_released_constants_with_the_class_terms_as_corrected():
    method = instantiate(load(f"pgd/{PAIR}").model.methods.pgd)
    assert type(method) is PGD and (method.topk, method.temperature) == (30, 0.8)
    assert method.alpha == pytest.approx(4 * 0.001) and method.gamma == pytest.approx(0.0016)


@pytest.mark.parametrize(("config", "epochs"), [(STUDENT, 12), (TEACHER, 36)])
def test_the_recipe_is_that_of_the_released_code(config: str, epochs: int):
    cfg = load(config)
    assert cfg.dataloader.train.total_batch_size == 16 and cfg.optimizer.lr == 0.01
    assert cfg.train.max_iter == epochs * 15000 // 16
    resize = cfg.dataloader.train.mapper.augmentations[0]
    assert resize.max_size == cfg.dataloader.test.mapper.augmentations[0].max_size == 1400
    assert resize.short_edge_length == ([800] if epochs == 12 else [480, 960])
    assert (cfg.train.clip_grad is None) == (epochs == 36)
    assert cfg.model.num_classes == 1 and cfg.model.max_detections_per_image == 500
    assert cfg.model.backbone.bottom_up.freeze_at == 0
