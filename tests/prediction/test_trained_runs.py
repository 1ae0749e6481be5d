"""Checkpoints that runs leave detect by themselves."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.utils.env import seed_all_rng

from dense_kd import BCKD, Distiller, MethodSet, Predictor, RetinaNet, Teacher
from dense_kd.checkpoint import CheckpointError, load_strictly
from dense_kd.checkpoint.description import ENTRY
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.data.shapes import CLASSES
from dense_kd.engine import train
from helpers.checked_runs import unregister
from helpers.described import small_run, write_checkpoint

pytestmark = pytest.mark.slow


OPTIONS = """
MODEL.META_ARCHITECTURE RetinaNet MODEL.DEVICE cpu MODEL.BACKBONE.FREEZE_AT 0
MODEL.BACKBONE.NAME build_retinanet_resnet_fpn_backbone MODEL.RESNETS.DEPTH 18
MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.OUT_FEATURES ['res3','res4','res5']
MODEL.RESNETS.STEM_OUT_CHANNELS 64 MODEL.FPN.IN_FEATURES ['res3','res4','res5']
MODEL.FPN.OUT_CHANNELS 16 MODEL.RETINANET.NUM_CLASSES 5 MODEL.RETINANET.NUM_CONVS 1
MODEL.ANCHOR_GENERATOR.SIZES [[32,40,50],[64,80,100],[128,160,200],[256,320,400],[512,640,800]]
MODEL.RETINANET.SCORE_THRESH_TEST 0.0
""".split()
"""Of detectron2's own RetinaNet, small."""

ALONE = """
import sys
sys.modules["dense_kd"] = None  # whoever imports it fails
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
weights, image, output, *options = sys.argv[1:]
cfg = get_cfg()
cfg.merge_from_list(options)
model = build_model(cfg).eval()
rest = DetectionCheckpointer(model).load(weights)
with torch.no_grad():
    (found,) = model([{"image": torch.load(image)}])
found = found["instances"]
torch.save([rest["iteration"], found.pred_boxes.tensor, found.scores, found.pred_classes], output)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with registered images and a teacher."""
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "val"):
        generate_shapes(root, split, 4, image_size=(64, 64))
        register_shapes(f"predicted_{split}", root, split)
    yield root
    unregister("predicted_train", "predicted_val")


def distill(student: object, teacher: str, output: Path) -> Path:
    """Two iterations from a detector of the student's kind; the folder of the run."""
    cfg = small_run()
    cfg.dataloader.train.dataset.names = "predicted_train"
    cfg.dataloader.test.dataset.names = "predicted_val"
    cfg.dataloader.train.total_batch_size = 2
    cfg.model = L(Distiller)(
        student=student,
        teacher=L(Teacher)(model=student, weights=teacher),
        methods=L(MethodSet)(bckd=L(BCKD)()),
    )
    cfg.train.update(max_iter=2, output_dir=str(output), device="cpu", eval_period=0)
    cfg.train.checkpointer.period = 1
    seed_all_rng(1)  # of some first weights, two iterations make a student that finds nothing
    train(argparse.Namespace(resume=False), cfg)
    return output


@pytest.fixture(scope="module")
def distilled(root) -> Path:
    """The folder of a distillation of two iterations."""
    distill(small_run().model, write_checkpoint(root / "teacher.pth"), root / "out")
    return root


def retinanet(options: list[str]) -> RetinaNet:
    """Of dense_kd, from keys of detectron2."""
    cfg = get_cfg()
    cfg.merge_from_list([*options])
    return RetinaNet(**RetinaNet.from_config(cfg))


def test_detectron2s_retinanet_detects_with_a_checkpoint_where_dense_kd_is_not(root, tmp_path):
    teacher = str(tmp_path / "teacher.pth")
    torch.save({"model": retinanet(OPTIONS).state_dict()}, teacher)
    run = distill(L(retinanet)(options=OPTIONS), teacher, tmp_path / "run")
    weights = str(run / "model_0000000.pth")  # as a run leaves it that is killed later
    image = torch.arange(3 * 64 * 64).reshape(3, 64, 64) % 251
    torch.save(image, tmp_path / "image.pth")
    files = [weights, *(str(tmp_path / f"{name}.pth") for name in ("image", "found"))]
    command = [sys.executable, "-c", ALONE, *files, *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = retinanet(OPTIONS).eval()
    load_strictly(ours, weights)
    with torch.no_grad():
        found = ours([{"image": image}])[0]["instances"]
    iteration, boxes, *others = torch.load(files[-1])
    assert iteration == 0 and len(boxes) > 0
    torch.testing.assert_close(boxes, found.pred_boxes.tensor)
    torch.testing.assert_close(others, [found.scores, found.pred_classes])


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
