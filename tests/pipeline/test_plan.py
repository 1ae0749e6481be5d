"""What is decided before anything is written, and what is refused."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from PIL import Image

from dense_kd import compat, distill
from dense_kd.data.folders import write_annotations
from dense_kd.engine import load_config
from dense_kd.pipeline import derive
from dense_kd.pipeline import plan as plan_module
from dense_kd.pipeline.config_files import write_configs
from dense_kd.pipeline.derive import Devices
from dense_kd.pipeline.errors import PipelineError
from dense_kd.pipeline.options import DistillOptions, from_keywords
from dense_kd.pipeline.plan import make_plan
from dense_kd.pipeline.records import record
from helpers.own_datasets import scenes, write_coco
from helpers.small_distillation import SMALL


def plan_of(images, **changes):
    return make_plan(str(images), DistillOptions(**{**SMALL, **changes}))


def refusal(images, **changes):
    with pytest.raises(PipelineError) as error:
        distill(images, **{**SMALL, "dry_run": True, **changes})
    return str(error.value)


def test_a_dry_run_says_every_number_with_its_reason_and_writes_nothing(
    images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = dict(student="gfl_small4", teacher="gfl_small8", device="cpu")
    assert distill(images, **options, compare=True, dry_run=True) == {}
    text = capsys.readouterr().out
    for part in (
        "12 training, 4 validation, 4 test images",
        "5 classes: circle, square, triangle, star, cross",
        "short edge: 128 (the median image has 128 x 128 pixels)",
        "batch size: 3 (12 images,",
        "iterations: 400 (100 epochs of 12 images",
        "learning rate: 0.000375 (its recipe's 0.002 for batches of 16, times the batch)",
        "starts from random weights (such detectors have no trained weights)",
        "method: bckd(cls_weight=4.0, loc_weight=4.0), as quickstart/distill.py",
        "stage 1: dense-kd train",
        "stage 4: AP on test, once",
    ):
        assert part in text
    assert not list(tmp_path.iterdir())


def test_a_plan_has_no_method_that_would_teach_nothing_in_so_few_iterations(images):
    plan = plan_of(images, method="fgfi", iterations=300)
    (line,) = [line for line in plan.lines() if line.startswith("method: fgfi(")]
    assert "warmup_iters=30" in line and "would be all of it" in line


def test_the_plan_says_how_many_images_show_nothing(tmp_path):
    def lines():
        return [line for line in plan_of(tmp_path).lines() if "without an object" in line]

    for part, empty in (("train", 3), ("val", 1)):
        content = {**scenes(6), **{f"empty{i}": [] for i in range(empty)}}
        write_coco(tmp_path / f"{part}.json", content, tmp_path / part)
    assert lines() == ["  without an object: 3 training, 1 validation images"]
    for part in ("train", "val"):
        write_coco(tmp_path / f"{part}.json", scenes(6), tmp_path / part)
    assert lines() == []


def test_the_plan_says_what_half_precision_saves_here(images):
    def line(has_bfloat16, **changes):
        with mock.patch.object(compat, "cpu_has_bfloat16", lambda: has_bfloat16):
            (line,) = [x for x in plan_of(images, **changes).lines() if x.startswith("precision:")]
        return line

    assert line(True).startswith("precision: float32 (bfloat16 is faster here, and rounds; --")
    assert line(False).startswith("precision: float32 (bfloat16 would be slower: these devices")
    assert line(True, precision="bfloat16") == "precision: bfloat16 (as given)"
    assert "; slower than float32: these devices" in line(False, precision="bfloat16")
    assert "float32, the teacher's pass bfloat16 (" in line(True, teacher_precision="bfloat16")


@pytest.mark.parametrize("name", ["bccd", "coco_2017", "own_shapes"])
def test_datasets_of_a_folder_have_names_that_stand_for_nothing_else(images, tmp_path, name):
    (tmp_path / name).symlink_to(images)
    plan = plan_of(tmp_path / name)
    assert plan.name == (name if name.startswith("own") else f"own_{name}")
    for part in ("train", "val", "test", "unlabelled"):
        assert f"{plan.name}_{part}" not in DatasetCatalog
    assert plan.output == Path("output/distill") / name


def test_the_name_of_datasets_is_the_same_where_they_are_registered_already(images, tmp_path):
    plan = plan_of(images, output=str(tmp_path))
    (tmp_path / "data").mkdir()
    write_annotations(plan.data, tmp_path / "data")
    load_config(str(write_configs(plan)["student"]))
    assert f"{plan.name}_train" in DatasetCatalog
    assert plan_of(images, output=str(tmp_path)).name == plan.name


@pytest.mark.parametrize(
    "precision, teacher_precision, order, teacher_order",
    [
        ("float32", None, False, False),
        ("float32", "bfloat16", False, True),
        ("bfloat16", None, True, True),
        ("bfloat16", "float32", True, False),
    ],
)
def test_detectors_in_half_precision_have_their_channels_last_but_small_ones(
    precision, teacher_precision, order, teacher_order
):
    for small in (False, True):
        found = derive.precision(precision, teacher_precision, Devices("cpu", 1), small, True)
        assert found.channels_last == (order and not small)
        assert found.teacher_channels_last == (teacher_order and not small)


def test_paths_of_options_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    options = from_keywords({"output": Path("~/out"), "teacher_weights": "~/a.pth"})
    assert options.output == "/home/somebody/out"
    assert options.teacher_weights == "/home/somebody/a.pth"


def test_the_stages_are_trainings_that_are_needed(images):
    assert plan_of(images).stages == ["teacher", "distilled"]
    assert plan_of(images, compare=True).stages == ["teacher", "student", "distilled"]


@pytest.fixture
def checkpoint(tmp_path):
    def write(**content):
        torch.save({"model": {"head.x": torch.zeros(1)}, **content}, tmp_path / "file.pth")
        return str(tmp_path / "file.pth")

    return write


SHAPES = ["circle", "square", "triangle", "star", "cross"]


def test_a_teacher_of_the_same_classes_is_used_as_it_is(images, checkpoint):
    weights = checkpoint(class_names=SHAPES)
    plan = plan_of(images, teacher_weights=weights, teacher_iterations=None)
    assert not plan.teacher.trained and plan.teacher.weights == weights
    assert plan.stages == ["distilled"]
    assert plan_of(images, teacher_weights=weights, teacher_iterations=3).teacher.trained


@pytest.mark.parametrize("names", [["a", "b"], SHAPES[::-1]])
def test_a_teacher_of_other_classes_is_trained_from_its_weights(images, checkpoint, names):
    weights = checkpoint(class_names=names)
    plan = plan_of(images, teacher_weights=weights, teacher_iterations=None)
    assert plan.teacher.trained and plan.teacher.weights == weights


def test_a_teacher_whose_file_says_no_classes_is_used_as_it_is_when_asked_for(images, checkpoint):
    weights = checkpoint()
    assert plan_of(images, teacher_weights=weights, teacher_iterations=None).teacher.trained
    assert not plan_of(images, teacher_weights=weights, teacher_iterations=0).teacher.trained
    assert "give teacher_weights" in refusal(images, teacher_iterations=0)


def test_weights_that_set_themselves_are_in_the_plan_and_in_the_config_that_is_written(
    images, tmp_path
):
    plan = plan_of(images, method="bckd+pkd", balance=0.6, output=str(tmp_path))
    assert "balance: each method gets 0.6 of the gradient (as given)" in plan.lines()
    (tmp_path / "data").mkdir()
    write_annotations(plan.data, tmp_path / "data")
    cfg = load_config(str(write_configs(plan)["distilled"]))
    assert cfg.model.methods.balance.target == 0.6
    assert instantiate(cfg.model.methods).balance.target == 0.6
    assert record(plan)["options"]["balance"] == 0.6
    alone = plan_of(images, output=str(tmp_path))
    assert not any("balance" in line for line in alone.lines())
    assert "balance" not in load_config(str(write_configs(alone)["distilled"])).model.methods
    assert "balance" not in record(alone)["options"]  # as in folders of before there was one


def test_a_file_of_weights_is_used_from_scratch_as_well(images, checkpoint):
    weights = checkpoint()
    plan = plan_of(images, student_weights=weights, from_scratch=True)
    assert (plan.student.weights, plan.teacher.weights) == (weights, "")


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(student="gfl_smal"), "did you mean gfl_small"),
        (dict(method="bkcd"), "did you mean bckd"),
        (dict(student="fcos_small4", method="ld"), "ld cannot distil gfl_small8 into fcos_small4"),
        (dict(student_weights="nothing.pth"), "there is no such file"),
        (dict(teacher="nothing.pth"), "nothing.pth"),
        (dict(batch_size=3, num_gpus=2), "expected a multiple of the 2 processes"),
        (dict(device="tpu"), "expected cuda or cpu"),
        (dict(precision="half"), "precision='half': expected one of float32, bfloat16, float16"),
        (dict(teacher_precision="int8"), "teacher_precision='int8': expected one of float32"),
        (dict(precision="float16"), "its gradients are scaled on a GPU"),
        (dict(balance=1.0), "balance=1.0: expected a share between 0 and 1"),
        (dict(balance=0.99), "tolerance=0.02: expected a number of at least 0, by which a share"),
        (dict(teacher_cache=" "), "expected memory, or a folder"),
        (dict(teacher_cache="/proc/none"), "nothing can be written to /proc"),
        (dict(layout="csv"), "expected coco, voc or yolo"),
        (dict(iterations=0), "iterations=0: expected at least 1"),
        (dict(iterations="many"), "expected a whole number or None"),
        (dict(learning_rate=-1.0), "expected a number above 0"),
        (dict(val_fraction=1.0), "between 0 and 1"),
        (dict(short_edge=640, long_edge=320), "the long one is shorter"),
        (dict(studnet="gfl_r50"), "no such option: studnet"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_trained(images, changes, said):
    assert said in refusal(images, **changes)


def test_a_teachers_cache_is_refused_before_the_teacher_is_trained_on_images_of_unlike_sizes(
    images, monkeypatch
):
    assert "teacher's cache: memory (as given)" in plan_of(images, teacher_cache="memory").lines()
    read = plan_module.read_dataset

    def unlike(*args, **options):
        dataset = read(*args, **options)
        for index, image in enumerate(dataset.train):
            image["height"] = 64 + 40 * index
        return dataset

    monkeypatch.setattr(plan_module, "read_dataset", unlike)
    said = refusal(images, teacher_cache="memory", short_edge=320, long_edge=2000)
    assert "teacher_cache=memory: images of 12 sizes come in batches of 4" in said
    assert "leave the option out" in said
    assert plan_of(images, teacher_cache="memory", batch_size=1)


@pytest.mark.parametrize("part", ["train", "val", "test", "unlabelled"])
def test_an_image_that_would_be_resized_to_nothing_is_named_before_anything_is_trained(
    images, tmp_path, monkeypatch, part
):
    read, options = plan_module.read_dataset, {}
    if part == "unlabelled":
        Image.new("RGB", (1, 700)).save(tmp_path / "thin.png")
        options["unlabelled"] = str(tmp_path)

    def with_thin(*args, **given):
        dataset = read(*args, **given)
        if part != "unlabelled":
            getattr(dataset, part)[1].update(width=1, height=700, file_name="thin.png")
        return dataset

    monkeypatch.setattr(plan_module, "read_dataset", with_thin)
    said = refusal(images, short_edge=96, long_edge=160, **options)
    assert "thin.png of 1 x 700 pixels would be resized to a side of 0 pixels; leave" in said
    assert "(long_edge=160)" in said
    assert plan_of(images, short_edge=96, long_edge=700, **options)


def test_weights_that_cannot_be_fetched_say_what_to_give(images, tmp_path, monkeypatch):
    from dense_kd.checkpoint import zoo

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(zoo.ZooHandler, "download", fail)
    with pytest.raises(PipelineError) as error:
        detectors = dict(student="gfl_r18", teacher="gfl_r18")
        distill(images, **{**SMALL, **detectors}, output=tmp_path / "out")
    for part in ("torchvision://resnet18", "no network", "--teacher-weights", "--from-scratch"):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists()
