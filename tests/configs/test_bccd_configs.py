"""The configs of BCCD: pairs of one detector, at half the size of the images and at all of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from detectron2.config import instantiate

from dense_kd.checkpoint.packages import PACKAGES
from dense_kd.data.bccd import CLASSES
from helpers.configs import RUNS, load

BCCD = [name for name in RUNS if name.startswith("bccd/")]
ALONE = [f"bccd/{d}_{b}{f}.py" for d in ("gfl", "fcos") for b in ("r18", "lite0", "lite2")
         for f in ("", "_full")]  # fmt: skip
DISTILLED = ["bccd/bckd_balanced_fcos_lite2_r18.py", "bccd/bckd_dsi_gfl_lite2_r18.py",
             "bccd/cankd_gfl_lite2_r18.py",
             "bccd/crosskd_fcos_lite2_r18.py", "bccd/two_teachers_gfl_lite2_r18.py",
             *(f"bccd/bckd_{d}_lite2_{b}{f}.py" for d in ("gfl", "fcos") for b in ("r18", "lite0")
               for f in ("", "_full"))]  # fmt: skip
WITHOUT_TEACHER = ["bccd/dsi_alone_gfl_lite2_r18.py"]
FEW_LABELS = {"bccd/unlabelled_tenth.py": 0.1, "bccd/unlabelled_quarter.py": 0.25}

TEACHERS = [name for name in ALONE if "lite2" in name]


def test_every_student_and_teacher_has_its_config_and_every_student_one_of_bckd():
    assert sorted(BCCD) == sorted([*ALONE, *DISTILLED, *WITHOUT_TEACHER, *FEW_LABELS])


@pytest.mark.parametrize("name", FEW_LABELS)
def test_with_few_labels_it_is_that_of_all_with_the_rest_of_the_images_seen_alike(name):
    cfg, whole = load(name), load("bccd/bckd_gfl_lite2_r18.py")
    labelled, unlabelled = cfg.dataloader.train, cfg.dataloader.unlabelled
    assert labelled.dataset.share == FEW_LABELS[name]
    for key in ("names", "share", "seed"):
        assert unlabelled.dataset[key] == labelled.dataset[key]
    assert unlabelled.mapper.augmentations == labelled.mapper.augmentations
    assert unlabelled.total_batch_size == labelled.total_batch_size == 8
    for part in ("student", "teacher", "methods"):
        assert cfg.model[part] == whole.model[part]
    assert (cfg.optimizer, cfg.lr_multiplier) == (whole.optimizer, whole.lr_multiplier)


def detector_of(name: str) -> str:
    return re.search("gfl|fcos", name)[0]


@pytest.mark.parametrize("name", ALONE)
def test_a_detector_has_the_classes_and_starts_from_the_weights_of_its_name(name):
    cfg = load(name)
    assert list(cfg.model.class_names) == list(CLASSES) and cfg.model.num_classes == 3
    assert cfg.model._target_.__name__.lower() == detector_of(name)
    backbone = name.removesuffix(".py").split("_")[1]
    if backbone == "r18":
        assert cfg.train.init_checkpoint == ""
        assert cfg.model.backbone.bottom_up.stem.out_channels == 16
        return
    packaged = PACKAGES[f"efficientnet-{backbone}"]
    assert cfg.train.init_checkpoint == f"package://efficientnet-{backbone}"
    assert cfg.model.backbone.bottom_up.name == packaged.network


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distillation_has_the_recipe_of_its_student_and_the_teacher_of_its_size(name):
    cfg = load(name)
    full = "_full" if "_full" in name else ""
    backbone = name.removesuffix(".py").removesuffix("_full").rsplit("_", 1)[1]
    student = load(f"bccd/{detector_of(name)}_{backbone}{full}.py")
    teacher = load(f"bccd/{detector_of(name)}_lite2{full}.py")
    assert cfg.model.student == student.model and cfg.model.teacher.model == teacher.model
    assert cfg.model.teacher.weights == f"{teacher.train.output_dir}/model_final.pth"
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert cfg[part] == student[part]
    assert cfg.train.init_checkpoint == student.train.init_checkpoint


@pytest.mark.parametrize("name", WITHOUT_TEACHER)
def test_without_a_teacher_it_is_the_recipe_of_its_student_and_the_network_of_the_one_beside(name):
    cfg, beside = load(name), load(name.replace("dsi_alone", "bckd_dsi"))
    assert cfg.model.teacher is None and cfg.model.student == beside.model.student
    assert cfg.model.methods.dsi == beside.model.methods.dsi
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert cfg[part] == beside[part]


@pytest.mark.parametrize("name", BCCD)
def test_images_are_small_on_a_cpu_and_whole_on_a_gpu(name):
    cfg = load(name)
    full = name.endswith("_full.py")
    assert cfg.train.device == ("cuda" if full else "cpu")
    for part in ("train", "test"):
        resize = instantiate(cfg.dataloader[part].mapper.augmentations[0])
        height, width = (
            resize.get_transform(np.zeros((480, 640, 3)))
            .apply_image(np.zeros((480, 640, 3), "uint8"))
            .shape[:2]
        )
        expected = (480, 640) if full else (240, 320)
        if part == "train" and name in TEACHERS:  # their sizes vary
            assert abs(height / expected[0] - 1) < 0.14 and abs(width / height - 4 / 3) < 0.01
        else:
            assert (height, width) == expected
    assert cfg.dataloader.test.dataset.names == "bccd_val"  # the test images are for the end
