"""The parts of a distillation's step, one by one, and what cannot be measured."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from detectron2.config import LazyCall as L

from dense_kd import BCKD, MGD, PKD, MethodSet
from dense_kd.benchmark.batches import (
    batch_facts,
    drawn_batch,
    number_without_labels,
    synthetic_batch,
)
from dense_kd.benchmark.errors import BenchmarkError
from dense_kd.benchmark.measuring import Settings, Wanted, benchmark
from dense_kd.benchmark.memory import bytes_of_pass
from dense_kd.benchmark.models import Models, set_classes
from dense_kd.benchmark.work import STEP, STUDENT, Work
from dense_kd.engine import RunError
from helpers.configs import files_loaded_once, fresh

CPU = torch.device("cpu")
CONFIG = "quickstart/distill"


def distillation(**methods):
    cfg = fresh("quickstart/distill.py")
    cfg.train.device = "cpu"
    if methods:
        cfg.model.methods = L(MethodSet)(**methods)
    return cfg


@pytest.fixture(scope="module")
def models():
    return Models(CPU)


@pytest.fixture(scope="module")
def work(models):
    cfg = distillation(bckd=L(BCKD)(), mgd=L(MGD)())
    return Work(cfg, models.distiller(cfg), synthetic_batch(2, (64, 96), 3, 5, 3))


def test_a_method_by_itself_gives_the_losses_and_gradients_of_the_step(models):
    cfg = distillation()
    model = models.distiller(cfg)
    normalizer = model.student.loss_normalizer.clone()  # which every step moves
    work = Work(cfg, model, synthetic_batch(2, (64, 96), 3, 5, 3))
    model.student.loss_normalizer.copy_(normalizer)
    expected = {k: v for k, v in model(work.batch).items() if k.startswith("kd_")}
    inputs = work.inputs()
    total = work.method("bckd", inputs)
    assert total.item() == pytest.approx(sum(expected.values()).item(), rel=1e-6)
    total.backward()
    student, teacher, _ = inputs
    assert all(x.grad.abs().sum() > 0 for x in (student.logits[0], student.deltas[0]))
    assert not any(p.grad is not None for p in model.student.parameters())
    assert not any(x.requires_grad for x in teacher.logits)


def test_what_a_method_computed_is_not_there_for_the_next(work):
    first, second = work.inputs(), work.inputs()
    assert first[0].boxes is not second[0].boxes and first[1].boxes is not second[1].boxes
    assert first[0].logits[0] is not second[0].logits[0]
    assert "valid" not in vars(first[2].targets) or first[2].targets is not second[2].targets


def test_a_pass_that_has_no_predictions_is_counted_without_them(models):
    cfg = distillation(pkd=L(PKD)())
    work = Work(cfg, models.distiller(cfg), synthetic_batch(1, (64, 96), 3, 5, 3))
    (teacher_pass,) = work.teacher_passes
    assert not teacher_pass.has_predictions
    features = sum(x.numel() * 4 for x in teacher_pass.features)
    priors = sum(x.numel() * 4 for x in teacher_pass.priors)
    assert bytes_of_pass(teacher_pass) == features + priors
    work.method("pkd", work.inputs()).backward()


def test_without_a_teacher_there_is_no_such_part_and_a_network_belongs_to_its_method(models):
    cfg = fresh("quickstart/dsi_alone.py")
    cfg.train.device = "cpu"
    work = Work(cfg, models.distiller(cfg), synthetic_batch(1, (64, 96), 3, 5, 3))
    assert [*work.parts()] == ["student", "step", "evaluation", "dsi forward", "dsi backward"]
    assert work.teacher_passes == [] and work.teachers() == {}
    work.method("dsi", work.inputs()).backward()
    assert work.model.kd.dsi.projector.weight.grad.abs().max() > 0


def test_steps_leave_the_weights_as_they_are_and_make_gradients(work):
    before = copy.deepcopy(dict(work.model.named_parameters()))
    parts = work.parts()
    assert [name for name in parts if name.startswith("mgd")] == ["mgd forward", "mgd backward"]
    for name in (STUDENT, STEP, "mgd backward"):
        parts[name].prepare()
        parts[name].run()
        grown = {n for n, p in work.model.named_parameters() if p.grad is not None}
        of_methods = {n for n in grown if n.startswith("kd.")}
        assert bool(of_methods) == (name != STUDENT) and bool(grown - of_methods) != (
            name == "mgd backward"
        )
    for name, parameter in work.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert work.model.student.training


def test_equal_detectors_are_built_once_and_methods_for_each(models, work, caplog):
    cfg = distillation(other=L(MGD)())
    other = models.distiller(cfg)
    assert other.student is work.model.student and other.teacher is work.model.teacher
    assert other.kd.other is not work.model.kd.mgd
    cfg.model.teacher.fold_norms = False
    unfolded = models.distiller(cfg)
    assert unfolded.student is other.student
    assert unfolded.teacher.model is not other.teacher.model
    cfg.train.channels_last = True
    arranged = models.distiller(cfg)
    assert arranged.student is not other.student and arranged.teacher is unfolded.teacher
    cfg.model.student.num_classes = 4
    assert models.detector(cfg.model.student, "model.student") is not other.student
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_random_weights_keep_activations_in_range_and_give_something_to_detect(work):
    student, batch = work.model.student.eval(), synthetic_batch(1, (256, 320), 0, 5, 3)
    with torch.no_grad():
        dense = student.run(student.preprocess_image(batch))
        (detected,) = student(batch)
    student.train()
    for level in dense.features:
        assert 0.5 < level.std() < 5
    assert 0.4 < torch.cat(dense.logits, dim=1).std() < 0.9
    assert len(detected["instances"]) > 0


def test_images_without_labels_are_in_the_step_and_not_in_that_of_the_student(models):
    cfg = fresh("quickstart/unlabelled.py")
    cfg.train.device = "cpu"
    cfg.dataloader.unlabelled.total_batch_size = 3 * cfg.dataloader.train.total_batch_size
    model = models.distiller(cfg)
    batch = drawn_batch(cfg, model.student, 1, (64, 96), 3)
    assert len(batch) == 4 and batch_facts(batch)["images"] == 1
    work, sizes = Work(cfg, model, batch), []
    handle = model.student.backbone.register_forward_hook(
        lambda _, images, maps: sizes.append(len(images[0]))
    )
    parts = work.parts()
    for name in (STUDENT, STEP):
        parts[name].run()
    handle.remove()
    assert sizes == [1, 4]
    assert (
        number_without_labels(cfg, 2) == 6 and number_without_labels(fresh(f"{CONFIG}.py"), 2) == 0
    )


def test_a_drawn_batch_is_always_the_same_and_holds_what_was_asked_for():
    batch, again = (synthetic_batch(2, (40, 600), 9, 1203, 1) for _ in range(2))
    assert batch_facts(batch) == {"images": 2, "height": 40, "width": 600, "boxes": 9}
    for image, twin in zip(batch, again):
        assert image["image"].shape == (1, 40, 600) and torch.equal(image["image"], twin["image"])
        boxes = image["instances"].gt_boxes
        assert torch.equal(boxes.tensor, twin["instances"].gt_boxes.tensor)
        assert boxes.inside_box((40, 600), boundary_threshold=1).all()
        sides = boxes.tensor[:, 2:] - boxes.tensor[:, :2]
        assert (sides >= 15.9).all() and image["instances"].gt_classes.max() < 1203
    assert not torch.equal(batch[0]["image"], batch[1]["image"])


def test_classes_reach_the_student_of_no_teacher():
    cfg = fresh("quickstart/dsi_alone.py")
    set_classes(cfg, 11)
    assert cfg.model.student.num_classes == 11 and cfg.model.teacher is None


def test_classes_reach_both_detectors_and_their_heads():
    cfg = distillation()
    set_classes(cfg, 11)
    for detector in (cfg.model.student, cfg.model.teacher.model):
        assert detector.num_classes == detector.head.num_classes == 11


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (CONFIG, {"what": ("time",)}, "what 'time': expected one or more of times, memory"),
        (CONFIG, {"rounds": 0}, "rounds=0: expected a whole number of at least 1"),
        (CONFIG, {"size": (16, 64)}, "height=16 and width=64: expected whole numbers of at least"),
        (CONFIG, {"device": "tpu"}, "device=tpu: expected cpu, cuda or cuda:1"),
        (CONFIG, {"data": True, "boxes": 3}, "leave the ones or the other out"),
        (None, {}, "there is no config"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(config, settings, said):
    with pytest.raises(BenchmarkError, match=said):
        benchmark([Wanted(config)] if config else [], Settings(**settings))


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        ("quickstart/student", (), "quickstart/student is of no distillation"),
        (CONFIG, ("train.amp.enabled=True",), "float16 needs a GPU to train"),
        (CONFIG, ("model.methods.bckd.loc_weigth=2",), "loc_weight"),
        (CONFIG, ("train.accumulate=4",), "train.accumulate=4: would not count; a step has one"),
        (CONFIG, ("train.device=cpu",), "train.device=cpu: would not count; give --device"),
        (CONFIG, ("dataloader.train.total_batch_size=8",), "would not count; give --batch"),
    ],
)
def test_a_config_that_cannot_be_measured_is_named(config, overrides, said):
    with files_loaded_once(), pytest.raises((BenchmarkError, RunError), match=said):
        benchmark([Wanted(config, overrides)], Settings(device="cpu"))


def test_data_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with files_loaded_once(), pytest.raises(RunError, match="instances_train.*not exist") as error:
        benchmark([Wanted(CONFIG)], Settings(device="cpu", data=True))
    assert "dataloader.test" not in str(error.value)
