"""What the checkpoints of a run say of its detector."""

from __future__ import annotations

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from torch import nn

from dense_kd.engine.state.described_run import DescribedRun, describe_run
from helpers.configs import fresh

COCO = "crosskd/gfl_r50_r18_1x.py"


def test_of_a_distillation_it_is_the_student_and_nothing_of_teacher_and_methods():
    cfg = fresh("quickstart/distill.py")
    described = describe_run(cfg)
    assert described == describe_run(fresh("quickstart/student.py"))
    assert described.model["_target_"] == "dense_kd.detectors.FCOS"
    assert "teacher" not in str(described) and "BCKD" not in str(described)


def test_it_has_the_classes_of_the_dataset_their_ids_and_how_images_are_resized():
    described = describe_run(fresh(COCO))
    assert described.class_names[:2] == ["person", "bicycle"]
    assert len(described.class_names) == len(described.category_ids) == 80
    assert described.category_ids[-1] == 90
    assert described.image_format == "RGB"
    (resize,) = described.augmentations
    assert resize["_target_"] == "detectron2.data.transforms.ResizeShortestEdge"
    assert (resize["short_edge_length"], resize["max_size"]) == (800, 1333)
    assert described.incomplete == ""


def test_classes_that_a_dataset_tells_when_it_is_loaded_are_known_when_it_is_saved():
    cfg = fresh("quickstart/student.py")
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = "described_train"
    MetadataCatalog.get("described_train")
    run = DescribedRun(cfg)
    try:
        assert run.state_dict()["class_names"] is None
        MetadataCatalog.get("described_train").thing_classes = list("abcde")
        assert run.state_dict()["class_names"] == list("abcde")
        assert run.state_dict()["category_ids"] is None
    finally:
        MetadataCatalog.remove("described_train")


def test_names_that_are_not_the_models_are_not_taken():
    cfg = fresh("gfl/r18_1x.py")
    cfg.model.num_classes = 3
    assert describe_run(cfg).class_names is None
    cfg.model.class_names = ["a", "b", "c"]
    assert describe_run(cfg).class_names == ["a", "b", "c"]


def test_a_dataset_that_is_not_registered_is_not_registered_by_asking():
    cfg = fresh("quickstart/student.py")
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = "no_such_dataset"
    assert describe_run(cfg).class_names is None
    assert "no_such_dataset" not in MetadataCatalog


class OwnMapper(DatasetMapper):
    pass


def own_mapper(image):
    return image


def test_what_cannot_be_described_is_said_and_stops_no_run():
    cfg = fresh("quickstart/student.py")
    cfg.dataloader.test.mapper = own_mapper
    assert describe_run(cfg).augmentations is None
    assert "own_mapper" in describe_run(cfg).incomplete
    cfg.dataloader.test.mapper = L(own_mapper)(image=1)
    assert "own_mapper" in describe_run(cfg).incomplete
    cfg.dataloader.test.mapper = L(OwnMapper)(
        is_train=False, augmentations=[T.Resize((3, 4))], image_format="BGR"
    )
    assert "an object" in describe_run(cfg).incomplete
    cfg.dataloader.test.mapper.augmentations = "???"
    assert describe_run(cfg).augmentations in (None, [])
    cfg.model.backbone.bottom_up.stem = nn.ReLU()
    described = describe_run(cfg)
    assert described.model is None
    assert "model.backbone.bottom_up.stem is an object" in described.incomplete


@pytest.mark.parametrize("part", ["dataloader", "train"])
def test_a_config_without_data_has_the_format_of_its_model(part):
    cfg = fresh(COCO)
    del cfg[part]
    assert describe_run(cfg).image_format == "RGB"
