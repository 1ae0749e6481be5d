"""Checkpoints that runs leave detect by themselves."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd import BCKD, Distiller, MethodSet, Predictor, Teacher
from dense_kd.checkpoint import CheckpointError
from dense_kd.checkpoint.description import ENTRY
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.data.shapes import CLASSES
from dense_kd.engine import train
from helpers.described import small_run, write_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distilled(tmp_path_factory) -> Path:
    """The folder of a distillation of two iterations."""
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "val"):
        generate_shapes(root, split, 4, image_size=(64, 64))
        register_shapes(f"predicted_{split}", root, split)
    cfg = small_run()
    cfg.dataloader.train.dataset.names = "predicted_train"
    cfg.dataloader.test.dataset.names = "predicted_val"
    cfg.dataloader.train.total_batch_size = 2
    student = cfg.model
    cfg.model = L(Distiller)(
        student=student,
        teacher=L(Teacher)(model=small_run().model, weights=write_checkpoint(root / "teacher.pth")),
        methods=L(MethodSet)(bckd=L(BCKD)()),
    )
    cfg.train.update(max_iter=2, output_dir=str(root / "out"), device="cpu", eval_period=0)
    cfg.train.checkpointer.period = 1
    train(argparse.Namespace(resume=False), cfg)
    yield root
    for name in ("predicted_train", "predicted_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


# The first is what a run leaves that is killed in its second iteration.
@pytest.mark.parametrize("name", ["model_0000000.pth", "model_final.pth"])
def test_every_checkpoint_of_a_distillation_is_its_student(distilled, name):
    path = distilled / "out" / name
    predictor = Predictor(path, device="cpu", score_threshold=0.0)
    assert predictor.class_names == list(CLASSES)
    assert predictor.category_ids == [1, 2, 3, 4, 5]
    state = torch.load(path, weights_only=True)
    assert "Teacher" not in str(state[ENTRY]) and "teacher" not in str(state[ENTRY])
    expected = instantiate(small_run().model).eval()
    expected.load_state_dict(state["model"])
    expected.test_score_thresh = 0.0
    image = next((distilled / "val").glob("*.png"))
    mapper = instantiate(small_run().dataloader.test.mapper)
    with torch.no_grad():
        (output,) = expected([mapper({"file_name": str(image)})])
    found = predictor(image).instances
    assert len(found) == len(output["instances"]) > 0
    torch.testing.assert_close(found.scores, output["instances"].scores)


def test_detectron2_loads_it_as_before(distilled):
    model = instantiate(small_run().model)
    rest = DetectionCheckpointer(model).load(str(distilled / "out" / "model_final.pth"))
    assert rest["iteration"] == 1


def test_names_of_its_classes_are_compared_where_it_is_loaded(distilled, tmp_path):
    cfg = small_run()
    cfg.model.class_names = ["star", *CLASSES[:-2], "cross"]
    with pytest.raises(CheckpointError, match="the same classes in another order"):
        Predictor(distilled / "out" / "model_final.pth", cfg, device="cpu")
