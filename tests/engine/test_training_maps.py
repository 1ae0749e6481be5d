"""``train.maps`` of a config: the maps of fixed images while a run trains."""

from __future__ import annotations

import argparse
import copy
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.making import FIGURES
from dense_kd.engine import RunError, train
from dense_kd.engine.drawn_maps import drawn_maps
from dense_kd.engine.training_maps import TrainingMaps, fixed_images
from helpers.builders import batch, tiny_fcos
from helpers.checked_runs import problems
from helpers.tried_runs import DISTILL, distillation, write_teacher


def distiller() -> Distiller:
    teacher = Teacher(tiny_fcos(seed=1), None)
    return Distiller(student=tiny_fcos(), teacher=teacher, methods=MethodSet(bckd=BCKD()))


def test_a_run_draws_them_for_tensorboard_and_for_the_report(tmp_path):
    teacher = write_teacher(tmp_path / "teacher.pth")
    drawn: dict[int, dict] = {}

    def keep(storage: EventStorage, name: str, image) -> None:
        drawn.setdefault(storage.iter, {})[name] = image

    overrides = ["train.max_iter=2", "train.maps.period=2", "train.maps.images=1",
                 "train.maps.figures=[bckd,tid]", "dataloader.evaluator=null"]  # fmt: skip
    with mock.patch.object(EventStorage, "put_image", keep):
        cfg = distillation(teacher, tmp_path / "out", *overrides)
        train(argparse.Namespace(resume=False), cfg)
    assert [*drawn] == [1]
    (name,) = fixed_images(cfg)
    assert [*drawn[1]] == [f"maps/{name}/bckd", f"maps/{name}/tid"]
    files = drawn_maps(tmp_path / "out")
    assert [(f.iteration, f.image, f.figure) for f in files] == [
        (1, name, "bckd"),
        (1, name, "tid"),
    ]
    for image, file in zip(drawn[1].values(), files):
        assert image.dtype == "uint8" and image.shape[0] == 3 and min(image.shape[1:]) > 200
        with Image.open(file.path) as picture:
            assert np.abs(np.asarray(picture).transpose(2, 0, 1) - image.astype(float)).mean() < 3


def test_images_of_one_name_have_folders_of_their_own(tmp_path):
    inputs = dict(zip(["a.jpg", "/b/a.jpg"], batch()))
    options = {"period": 1, "images": 2, "figures": ["bckd"]}
    hook = TrainingMaps(distiller(), inputs, folder=str(tmp_path), **options)
    hook.trainer = mock.Mock(iter=6)
    hook.after_step()
    assert [(f.iteration, f.image) for f in drawn_maps(tmp_path)] == [(6, "_b_a.jpg"), (6, "a.jpg")]


def test_training_is_what_it_is_without_them(tmp_path):
    found = []
    for drawing in (True, False):
        torch.manual_seed(0)
        model = distiller().train()
        model.student.vis_period = 1
        options = {"period": 1, "images": 1, "figures": [*FIGURES]}
        hook = TrainingMaps(model, {"a": batch()[0]}, folder=str(tmp_path), **options)
        hook.trainer = mock.Mock(iter=0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with EventStorage() as storage:
            for _ in range(2):
                optimizer.zero_grad()
                sum(model(batch()).values()).backward()
                optimizer.step()
                if drawing:
                    hook.after_step()
        logged = [value for value, _ in storage.history("num_pos_anchors").values()]
        assert len(logged) == len(storage._vis_data) == 2
        assert len(hook.trainer.storage.put_image.call_args_list) == (
            2 * len(FIGURES) if drawing else 0
        )
        found.append({**model.state_dict(), "rng": torch.get_rng_state(),
                      "normalizer": model.student.loss_normalizer,
                      "logged": torch.tensor(logged)})  # fmt: skip
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_figures_that_an_image_does_not_allow_are_left_out_and_said_once(tmp_path, caplog):
    model = distiller()
    inputs = dict(zip("ab", batch("all empty")))
    options = {"period": 1, "images": 2, "figures": ["bckd", "pgd"]}
    hook = TrainingMaps(model, inputs, folder=str(tmp_path), **options)
    hook.trainer = mock.Mock(iter=0)
    for _ in range(2):
        hook.after_step()
    names = [call.args[0] for call in hook.trainer.storage.put_image.call_args_list]
    assert names == ["maps/a/bckd", "maps/b/bckd"] * 2
    said = [record for record in caplog.records if "no object is annotated" in record.message]
    assert len(said) == 1


def test_images_are_spread_over_those_with_objects(tmp_path):
    cfg = distillation(tmp_path / "t.pth", tmp_path, "train.maps.period=1", "train.maps.images=3")
    names = [*fixed_images(cfg)]
    records = [r for r in DatasetCatalog.get("checked_val") if r["annotations"]]
    files = [record["file_name"].rpartition("/")[2] for record in records]
    assert names[0] == files[0] and names[-1] == files[-1] and len(names) == min(3, len(files))
    assert all(len(inputs["instances"]) > 0 for inputs in fixed_images(cfg).values())


def test_an_image_with_nothing_but_a_crowd_has_no_objects(tmp_path, monkeypatch):
    records = copy.deepcopy(DatasetCatalog.get("checked_val"))
    alone, *others = (record for record in records if record["annotations"])
    for record in others:
        for each in record["annotations"]:
            each["iscrowd"] = 1
    monkeypatch.setitem(DatasetCatalog.data, "checked_val", lambda: records)
    cfg = distillation(tmp_path / "t.pth", tmp_path, "train.maps.period=1", "train.maps.images=3")
    assert [*fixed_images(cfg)] == [alone["file_name"].rpartition("/")[2]]


def test_a_run_without_images_to_draw_stops_before_its_first_batch(tmp_path):
    cfg = distillation(tmp_path / "t.pth", tmp_path, "train.maps.period=1")
    with mock.patch("dense_kd.engine.training_maps.AnnotatedImages") as images:
        images.return_value.records, images.return_value.no_dataset = {}, "it is gone"
        with pytest.raises(RunError, match="train.maps.period=1: there is no image .*it is gone"):
            fixed_images(cfg)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["train.maps.period=200"], "no map would be drawn in train.max_iter=100; give at most"),
        (["dataloader.test=null", "dataloader.evaluator=null"], "of dataloader.test, and there is"),
    ],
)
def test_options_that_contradict_each_other_are_refused(overrides, said):
    found = problems("train.maps.period=5", "train.max_iter=100", *overrides, config=DISTILL)
    assert sum(said in problem for problem in found) == 1


def test_a_model_without_a_teacher_has_no_maps():
    with pytest.raises(DiagnosticsError, match="the model is a FCOS; expected a Distiller"):
        TrainingMaps(tiny_fcos(), {}, folder="out", period=1, images=1, figures=["bckd"])
