"""A run that fits is described, and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from dense_kd.engine.dry_run import dry_run
from dense_kd.engine.dry_run.unchanged import unchanged
from helpers.checked_runs import load, unregister
from helpers.tried_runs import distillation, write_teacher

CLASSES = ["circle", "square", "triangle", "star", "cross"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


@pytest.fixture(scope="module")
def distilled(teacher, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "output"
    cfg = distillation(teacher, output, "model.methods.bckd.warmup_iters=50")
    before = copy.deepcopy(cfg)
    found = dry_run(cfg, num_images=2, num_steps=2)
    assert found.problems == [] and found.fits and found.not_tried == []
    assert cfg == before and not output.exists()
    return found


def test_the_data_is_that_of_both_loaders_with_what_the_mapper_makes_of_it(distilled):
    for part, facts in (("train", distilled.train), ("test", distilled.test)):
        images = DatasetCatalog.get(f"checked_{part}".replace("test", "val"))
        objects = [len(image["annotations"]) for image in images]
        assert (facts.num_images, facts.num_objects) == (4, sum(objects))
        assert facts.num_empty == objects.count(0)
        assert facts.classes == CLASSES == list(facts.objects_per_class)
        assert sum(facts.objects_per_class.values()) == sum(objects)
        assert facts.batch.smallest == facts.batch.largest == (64, 64)
        assert (facts.batch.image_format, facts.batch.dtype) == ("BGR", "uint8")
    assert (distilled.train.batch.num_images, distilled.test.batch.num_images) == (4, 2)
    assert distilled.train.batch.num_objects == distilled.train.num_objects
    assert distilled.test.batch.num_objects is None


def test_parameters_and_classes_are_those_of_student_teacher_and_methods(distilled, teacher):
    student, of_teacher, method = distilled.models
    assert (student.kind, of_teacher.kind, method.kind) == ("FCOS", "FCOS", "BCKD")
    assert 0 < student.parameters == student.trained < of_teacher.parameters
    assert of_teacher.trained == method.parameters == 0
    assert (student.num_classes, of_teacher.num_classes) == (5, 5)
    assert (of_teacher.weights, student.weights) == (str(teacher), None)
    assert (method.classes, method.warmup_iters) == ("all 5 classes, in their order", 50)


def test_the_maps_of_both_pyramids_stand_beside_their_strides(distilled):
    assert distilled.input_shape == (4, 3, 64, 64)
    for level, stride in zip(distilled.levels, (8, 16, 32)):
        assert level.stride == stride
        assert level.student == level.teacher == (4, 64, 64 // stride, 64 // stride)
    assert [level.name for level in distilled.levels] == ["p3", "p4", "p5"]


def test_each_loss_has_its_gradient_at_the_pyramid_and_no_warm_up(distilled, teacher, tmp_path):
    shares = {loss.name: loss.share for loss in distilled.losses}
    assert set(shares) == {
        "loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "kd_bckd_loss_cls", "kd_bckd_loss_loc",
    }  # fmt: skip
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    # Another weight changes its terms, and nothing else.
    cfg = distillation(teacher, tmp_path / "out", "model.methods.bckd.cls_weight=8")
    doubled = {loss.name: loss for loss in dry_run(cfg, num_images=1, num_steps=1).losses}
    for loss in distilled.losses:
        factor = 2 if loss.name == "kd_bckd_loss_cls" else 1
        assert doubled[loss.name].value == pytest.approx(factor * loss.value, rel=1e-4)
        assert doubled[loss.name].gradient == pytest.approx(factor * loss.gradient, rel=1e-3)


def test_time_memory_and_schedule_are_those_of_the_run(distilled):
    step, schedule = distilled.step, distilled.schedule
    assert step.seconds > 0 and step.num_steps == 2 and step.num_images == 4
    assert 0 <= step.waiting <= step.seconds and step.gradient_norm > 0
    assert step.memory is None or step.memory > 0
    assert (schedule.max_iter, schedule.epochs, schedule.clip_grad) == (100, 100, 10)
    assert distilled.total_seconds == pytest.approx(100 * step.seconds)
    per_image = distilled.evaluation.seconds_per_image
    assert distilled.evaluation_seconds == pytest.approx(4 * per_image)


def test_an_untrained_teacher_is_warned_of(distilled):
    images = DatasetCatalog.get("checked_val")[:2]
    assert distilled.teachers["teacher"].num_objects == sum(len(x["annotations"]) for x in images)
    assert distilled.teachers["teacher"].ap50 == pytest.approx(0, abs=1)
    assert any("the teacher finds next to nothing" in text for text in distilled.warnings)


def test_the_evaluator_judges_the_images_that_it_was_shown(distilled):
    evaluation = distilled.evaluation
    assert (evaluation.evaluators, evaluation.num_images) == (["COCOEvaluator"], 2)
    assert evaluation.how == "COCOEvaluator on these images only"


def test_the_page_has_a_section_for_each_part_and_ends_with_fits(distilled):
    text = distilled.text()
    lines = text.splitlines()
    titles = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert titles == [
        "data", "models", "pyramid", "losses", "step", "schedule", "teacher", "evaluation",
        "warnings", "fits",
    ]  # fmt: skip
    assert lines[-1] == "fits" and "100 iterations of 4 images, 100 epochs" in text


def test_all_of_it_is_json(distilled):
    content = json.loads(json.dumps(distilled.to_dict(), allow_nan=False))
    assert content["fits"] is True and content["train"]["names"] == ["checked_train"]
    assert content["losses"][0]["name"] == "loss_fcos_cls"
    assert content["total_seconds"] == pytest.approx(distilled.total_seconds)


def test_a_run_without_a_teacher_is_tried_as_well(tmp_path):
    cfg = load(f"train.output_dir={tmp_path / 'out'}", "train.amp.enabled=true",
               "train.amp.dtype=bfloat16", "train.accumulate=2")  # fmt: skip
    found = dry_run(cfg, num_images=4, num_steps=1)
    assert found.problems == [] and found.teachers == {}
    assert [model.name for model in found.models] == ["student"]
    assert all(level.teacher is None for level in found.levels)
    assert found.step.num_images == 4 and found.schedule.precision == "bfloat16"
    assert found.evaluation.how == "COCOEvaluator on all images"
    assert found.text().endswith("fits")


def test_one_of_several_processes_is_tried_with_its_part_of_the_batch(tmp_path):
    cfg = load(f"train.output_dir={tmp_path / 'out'}", "dataloader.train.total_batch_size=4")
    found = dry_run(cfg, num_images=1, num_steps=1, num_processes=4)
    assert found.step.num_images == found.train.batch.num_images == 1
    assert found.schedule.images_per_iteration == 4
    assert "has 4 images, over all its processes" in found.text()
    assert dry_run(cfg, num_images=1, num_steps=1, batch_size=3).step.num_images == 3
    with pytest.raises(ValueError, match="num_images"):
        dry_run(cfg, num_images=0)


def test_the_process_is_left_as_it_was(tmp_path):
    """Also where the evaluator writes a file of a dataset and has the catalog name it."""
    DatasetCatalog.register("tried", lambda: DatasetCatalog.get("checked_val"))
    MetadataCatalog.get("tried").thing_classes = CLASSES
    try:
        cfg = load(
            f"train.output_dir={tmp_path / 'out'}",
            "dataloader.test.dataset.names=tried",
            "train.cudnn_benchmark=true",
        )
        cfg.dataloader.evaluator = L(COCOEvaluator)(
            dataset_name="tried", output_dir=str(tmp_path / "out" / "inference")
        )
        vars(MetadataCatalog.get("checked_train")).pop("thing_classes", None)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        names = {*DatasetCatalog}, {*MetadataCatalog}
        known = {name: dict(vars(MetadataCatalog.get(name))) for name in names[1]}
        found = dry_run(cfg, num_images=2, num_steps=1)
        assert found.problems == [] and found.evaluation.metrics
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
        assert ({*DatasetCatalog}, {*MetadataCatalog}) == names
        assert {name: vars(MetadataCatalog.get(name)) for name in names[1]} == known
        assert not torch.backends.cudnn.benchmark and [*tmp_path.iterdir()] == []
    finally:
        unregister("tried")


def test_what_fails_leaves_the_process_as_it_was():
    with pytest.raises(KeyError), unchanged():
        DatasetCatalog.register("tried", list)
        MetadataCatalog.get("tried").thing_classes = ["a"]
        raise KeyError
    assert "tried" not in DatasetCatalog and "tried" not in MetadataCatalog.data
