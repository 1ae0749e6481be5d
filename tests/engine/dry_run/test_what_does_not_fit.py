"""All that does not fit is listed, and what does not depend on it is tried nevertheless."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from dense_kd import BCKD, FCOS, Teacher
from dense_kd.engine.dry_run import dry_run
from dense_kd.engine.dry_run.unchanged import unchanged
from helpers.checked_runs import load
from helpers.tried_runs import distillation, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def tried(cfg):
    found = dry_run(cfg, num_images=2, num_steps=1)
    assert not found.fits
    assert f"does not fit: {len(found.problems)} problem" in found.text()
    return found


def plain(tmp_path, *overrides: str):
    return load(f"train.output_dir={tmp_path / 'out'}", *overrides)


def test_problems_of_all_parts_are_listed_at_once(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last_checkpoint").write_text("model_final.pth")
    cfg = plain(
        tmp_path, "train.device=cuda:77", "model.num_classes=4", "train.log_period=0",
        "train.init_checkpoint=/none/x.pth", "optimizer.lr=-1",
    )  # fmt: skip
    text = "\n".join(tried(cfg).problems)
    for expected in (
        "train.device=cuda:77", "model.num_classes=4, but the dataset checked_train",
        "model.num_classes=4, but the dataset checked_val", "train.log_period=0",
        "train.init_checkpoint=/none/x.pth does not exist", "optimizer: AdamW refuses",
    ):  # fmt: skip
        assert text.count(expected) == 1, text


def test_a_config_without_a_part_is_not_tried():
    cfg = load()
    del cfg["optimizer"]
    found = tried(cfg)
    assert "the config has no 'optimizer'" in found.problems[0]
    assert "an evaluation" in found.not_tried and found.step is None


def test_a_device_that_is_not_there_does_not_hinder_the_rest(tmp_path):
    cfg = plain(tmp_path, "train.device=cuda:77", "train.amp.enabled=true")
    found = tried(cfg)
    (problem,) = found.problems
    assert problem.startswith("train.device=cuda:77")
    assert found.device == "cpu" and found.step and found.evaluation and found.not_tried == []
    assert any("float16 is not tried" in text for text in found.warnings)
    assert found.schedule.precision == "float16"


def test_without_the_teachers_file_the_rest_is_tried_with_random_numbers(tmp_path):
    found = tried(distillation(tmp_path / "none.pth", tmp_path / "out"))
    (problem,) = found.problems
    assert "none.pth does not exist" in problem
    assert found.losses and found.step and found.teachers == {}
    assert found.not_tried == ["the teacher's score"]
    assert any("a teacher with random numbers" in text for text in found.warnings)


def test_a_teachers_file_that_does_not_fit_is_refused_as_in_a_run(tmp_path, teacher):
    weights = torch.load(teacher)["model"]
    torch.save({"model": {k: v for k, v in weights.items() if "fpn" not in k}}, tmp_path / "t.pth")
    found = tried(distillation(tmp_path / "t.pth", tmp_path / "out"))
    (problem,) = found.problems
    assert "t.pth" in problem and "backbone.fpn_lateral3.weight" in problem
    assert found.not_tried == [
        "the teacher's score", "losses and gradients", "steps of the optimizer",
    ]  # fmt: skip
    assert found.evaluation is not None and len(found.models) == 3


def test_the_classes_of_the_teachers_file_are_compared_with_the_datasets(tmp_path, teacher):
    DatasetCatalog.get("checked_val")  # which names them
    names = MetadataCatalog.get("checked_val").thing_classes
    content = {**torch.load(teacher), "CLASSES": names[::-1]}
    torch.save(content, tmp_path / "t.pth")
    text = "\n".join(tried(distillation(tmp_path / "t.pth", tmp_path / "out")).problems)
    assert "in another order" in text


def test_a_file_to_start_from_that_does_not_fit_is_listed(tmp_path, teacher):
    cfg = plain(tmp_path, f"train.init_checkpoint={teacher}")
    (problem,) = tried(cfg).problems
    assert "teacher.pth: 31 of its 134 tensors go into FCOS" in problem


class Spare(FCOS):
    """Has a layer that nothing uses."""

    def __init__(self, **options):
        super().__init__(**options)
        self.spare = nn.Linear(2, 2)


def test_parameters_without_gradient_are_named(tmp_path):
    cfg = plain(tmp_path)
    cfg.model._target_ = Spare
    found = tried(cfg)
    (problem,) = found.problems
    assert problem.startswith("2 of ") and "spare.weight, spare.bias" in problem
    assert found.step is not None
    cfg.train.ddp.find_unused_parameters = True
    found = dry_run(cfg, num_images=1, num_steps=1)
    assert found.fits and any("spare.weight" in text for text in found.warnings)


def test_losses_that_are_not_finite_are_named(tmp_path, teacher, monkeypatch):
    def losses(self, *args):
        return {"loss_cls": torch.tensor(math.nan, requires_grad=True)}

    monkeypatch.setattr(FCOS, "losses", losses)
    found = tried(plain(tmp_path))
    (problem,) = found.problems
    assert "not finite (loss_cls=nan): look at the images" in problem
    assert found.not_tried == ["steps of the optimizer"]


def test_a_teacher_whose_pass_is_not_finite_is_named(tmp_path, teacher, monkeypatch):
    run = Teacher.run

    def broken(self, *args, **options):
        dense = run(self, *args, **options)
        dense.logits[0][:] = math.inf
        return dense

    monkeypatch.setattr(Teacher, "run", broken)
    (problem,) = tried(distillation(teacher, tmp_path / "out")).problems
    assert "kd_bckd_loss_cls=nan" in problem
    assert "the teacher's pass over a batch is not finite" in problem


def test_a_method_that_fails_is_listed_with_its_line(tmp_path, teacher, monkeypatch):
    monkeypatch.setattr(BCKD, "forward", lambda self, *args: {}["loss"])
    found = tried(distillation(teacher, tmp_path / "out"))
    (problem,) = found.problems
    assert problem.startswith("losses and gradients: KeyError: 'loss' (test_what_does_not_fit.py:")
    assert found.evaluation and found.teachers


def test_a_gpu_without_enough_memory_is_told_what_helps(tmp_path, monkeypatch):
    def full(self, *args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(FCOS, "losses", full)
    (problem,) = tried(plain(tmp_path)).problems
    assert "Tried to allocate 2 GiB.). Give smaller batches" in problem


@pytest.fixture
def register():
    with unchanged():
        yield DatasetCatalog.register


def test_an_image_that_cannot_be_read_is_listed(tmp_path, register):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no image")

    def images():
        found = DatasetCatalog.get("checked_train")
        found[-1]["file_name"] = str(damaged)
        return found

    register("tried_damaged", images)
    cfg = plain(tmp_path, "dataloader.train.dataset.names=tried_damaged",
                "dataloader.train.total_batch_size=4")  # fmt: skip
    found = tried(cfg)
    (problem,) = found.problems
    assert problem.startswith(f"{damaged} cannot be used: UnidentifiedImageError")
    assert found.evaluation and found.train.num_images == 4


def test_classes_without_objects_are_warned_of(tmp_path, register):
    def images():
        found = DatasetCatalog.get("checked_train")
        for image in found:
            image["annotations"] = [x for x in image["annotations"] if x["category_id"] != 1]
        return found

    register("tried_absent", images)
    MetadataCatalog.get("tried_absent").thing_classes = ["a", "b", "c", "d", "e"]
    cfg = plain(tmp_path, "dataloader.train.dataset.names=tried_absent")
    found = dry_run(cfg, num_images=1, num_steps=1)
    assert any("have no object in the training set (b)" in text for text in found.warnings)


class Broken(DatasetEvaluator):
    def evaluate(self):
        raise IndexError("no such image")


def test_an_evaluator_that_fails_on_a_part_may_need_all_images(tmp_path):
    cfg = plain(tmp_path)
    cfg.dataloader.evaluator = L(Broken)()
    found = dry_run(cfg, num_images=2, num_steps=1)
    assert found.fits and found.evaluation.metrics == {}
    assert any("Broken could not evaluate 2 images" in text for text in found.warnings)
    found = dry_run(cfg, num_images=4, num_steps=1)
    (problem,) = found.problems
    assert problem.startswith("an evaluation: IndexError: no such image")


def test_a_student_that_cannot_be_built_hides_nothing_of_the_data(tmp_path):
    cfg = plain(tmp_path, "model.pixel_std=[1,1]")
    found = tried(cfg)
    (problem,) = found.problems
    assert "one for each channel" in problem
    assert found.train.batch and found.test.batch and found.models == []
    assert found.not_tried[:2] == ["the model", "an evaluation"]
