"""What is wrong with images without labels is said before the first batch."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog

from dense_kd.engine import RunError
from dense_kd.engine.dry_run.run import dry_run
from dense_kd.engine.loaders import load_training
from helpers.checked_runs import load, problems

CONFIG = "quickstart/unlabelled.py"
SHARE = "dataloader.train.dataset.share=0.5"
TEACHER = "model.teacher.weights"
LOADER = "dataloader.unlabelled"


def found(*overrides: str) -> list[str]:
    """Besides the teacher's file, which nobody has trained."""
    all_found = problems(SHARE, *overrides, config=CONFIG)
    return [problem for problem in all_found if not problem.startswith(TEACHER)]


def test_the_config_of_the_quickstart_is_in_order():
    assert found() == []


WRONG = {
    "pseudo-labels without images": (
        [f"{LOADER}=null"],
        "there is no dataloader.unlabelled that gives such images",
    ),
    "a student alone": (
        ["model={_target_: dense_kd.detectors.FCOS}"],
        "dataloader.unlabelled gives images without labels, from which a model FCOS cannot learn",
    ),
    "another loader": (
        [f"{LOADER}._target_=dense_kd.data.TrainLoader"],
        "dataloader.unlabelled is TrainLoader; beside images without labels, expected a dense_kd."
        "data.UnlabelledLoader",
    ),
    "another loader of labelled ones": (
        ["dataloader.train._target_=detectron2.data.build_detection_train_loader"],
        "dataloader.train is build_detection_train_loader; beside images without labels",
    ),
    "an unknown dataset": (
        [f"{LOADER}.dataset.names=nothing"],
        "dataloader.unlabelled.dataset.names=nothing: no such dataset is registered",
    ),
    "no folder": (
        [f"{LOADER}.dataset={{_target_: dense_kd.data.unlabelled_images, folder: nowhere}}"],
        "dataloader.unlabelled.dataset.folder='nowhere': expected a folder with images",
    ),
    "batches": ([f"{LOADER}.total_batch_size=0"], "dataloader.unlabelled.total_batch_size=0"),
    "channels": (
        [f"{LOADER}.mapper.image_format=RGB"],
        "dataloader.unlabelled.mapper.image_format=RGB, but model.student.input_format=BGR",
    ),
    "an option": ([f"{LOADER}.ratio=2"], "ratio"),
    "a cache of images that never come again": (
        [
            "model.teacher.cache=memory",
            f"{LOADER}.mapper.augmentations=[{{_target_: detectron2.data.transforms."
            "RandomContrast, intensity_min: 0.5, intensity_max: 2.0}]",
        ],
        "dataloader.unlabelled.mapper.augmentations.0 changes the image at random",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_go_together_is_said(what):
    overrides, message = WRONG[what]
    assert any(message in problem for problem in found(*overrides)), found(*overrides)


def test_batches_are_shared_by_the_processes():
    problem = f"{LOADER}.total_batch_size=3: expected a multiple of the 2 processes"
    overrides = [SHARE, f"{LOADER}.total_batch_size=3"]
    assert any(problem in each for each in problems(*overrides, config=CONFIG, num_processes=2))


def test_both_loaders_are_built_and_an_image_that_is_not_there_is_named(tmp_path):
    cfg = load(SHARE, config=CONFIG)
    batch = next(iter(load_training(cfg).loader))
    assert ["unlabelled" in image for image in batch] == [False] * 2 + [True] * 8
    records = [{"file_name": str(tmp_path / "gone.png"), "height": 8, "width": 8}] * 4
    DatasetCatalog.register("gone", lambda: [dict(x, annotations=[BOX]) for x in records])
    try:
        cfg.dataloader.unlabelled.dataset.names = "gone"
        with pytest.raises(RunError, match=r"\(dataloader.unlabelled\): the image .*gone"):
            load_training(cfg)
    finally:
        DatasetCatalog.remove("gone")


BOX = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}


def test_a_dry_run_tries_both_kinds_of_images_and_refuses_methods_that_cannot_learn():
    overrides = [SHARE, "train.device=cpu", f"{LOADER}.total_batch_size=2"]
    result = dry_run(load(*overrides, config=CONFIG), num_images=1, num_steps=1)
    assert [p for p in result.problems if not p.startswith(TEACHER)] == []
    assert (result.train.batch.num_images, result.train.batch.num_unlabelled) == (4, 2)
    assert "2 without labels" in result.text()
    assert any(loss.name == "kd_bckd_loss_cls" for loss in result.losses)
    cfg = load(*overrides, "model.pseudo_labels=null", config=CONFIG)
    refused = dry_run(cfg, num_images=1, num_steps=1).problems
    assert any("the methods ['bckd'] read ground truth" in problem for problem in refused)
