"""What run configs take over: a student's recipe, and teachers with their weights."""

from __future__ import annotations

import copy
import os

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from dense_kd import Distiller, get_config, known_teacher, recipe
from dense_kd.checkpoint import zoo
from dense_kd.engine import RunError, check_run, load_config
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.recipes import PUBLISHED
from helpers.configs import FULL_RUNS, ROOT, load

PARTS = ("dataloader", "optimizer", "lr_multiplier", "train")
RUN = '''"""A run of the user's own."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
'''


@pytest.fixture
def run_file(tmp_path):
    """A run config in the folder ``mine``."""
    file = tmp_path / "mine" / "distill.py"
    file.parent.mkdir()
    file.write_text(RUN)
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    file = tmp_path_factory.mktemp("mine") / "distill.py"
    file.write_text(RUN)
    return LazyConfig.load(str(file))


def test_a_recipe_is_the_students_own():
    student = get_config("fcos/mmdet_r50_1x.py")
    assert list(recipe(student)) == [student[part] for part in PARTS]


def test_changes_of_a_recipe_reach_neither_the_student_nor_another_recipe():
    student = get_config("quickstart/student.py")
    before = copy.deepcopy(student)
    first, second = recipe(student), recipe(student)
    dataloader, optimizer, lr_multiplier, train = first
    dataloader.train.mapper.image_format = "RGB"
    optimizer.lr = 1.0
    lr_multiplier.scheduler.start_value = 0.5
    train.checkpointer.period = 7
    train.clip_grad = None
    assert student == before and list(second) == [before[part] for part in PARTS]
    student.optimizer.lr = 3.0
    assert optimizer.lr == 1.0 and second[1].lr == before.optimizer.lr


def test_a_recipe_of_a_config_that_is_read_only_can_be_changed():
    train = recipe(load("quickstart/student.py"), "mine/distill.py")[-1]
    train.max_iter = 5
    assert (train.max_iter, train.output_dir) == (5, "output/mine/distill")


def test_what_a_recipe_refers_to_is_found_in_the_copies():
    student = get_config("fcos/mmdet_r50_1x.py")
    student.lr_multiplier.warmup_length = "${train.warmup}"
    student.train.warmup = 0.25
    _, optimizer, lr_multiplier, train = recipe(student)
    optimizer.lr, train.warmup = 1.0, 0.5
    assert (optimizer.params.base_lr, lr_multiplier.warmup_length) == (1.0, 0.5)
    assert (student.optimizer.params.base_lr, student.lr_multiplier.warmup_length) == (0.01, 0.25)


def test_a_run_writes_to_the_folder_of_its_file_and_what_starts_from_it_too(run_file, monkeypatch):
    (run_file.parent / "longer.py").write_text(
        "from .distill import dataloader, lr_multiplier, model, optimizer, train\n"
        "train.max_iter = 2000\n"
    )
    for path in (str(run_file), str(run_file.with_name("longer.py"))):
        assert LazyConfig.load(path).train.output_dir == "output/mine/distill"
    monkeypatch.chdir(run_file.parent)
    assert LazyConfig.load("distill.py").train.output_dir == "output/mine/distill"
    assert recipe(get_config("gfl/r50_1x.py"))[-1].output_dir == "output/gfl/r50_1x"


def test_what_is_no_whole_config_is_refused():
    student = get_config("quickstart/student.py")
    with pytest.raises(ValueError, match="no dataloader, optimizer, lr_m.*it has _target_"):
        recipe(student.model)
    student.train = None
    with pytest.raises(ValueError, match="no train .it has dataloader, lr_m.* as get_config"):
        recipe(student)
    with pytest.raises(ValueError, match="student's config is 'quickstart/student.py'; expected"):
        recipe("quickstart/student.py")
    with pytest.raises(ValueError, match="common/train.py has no model .it has train.; expected"):
        known_teacher("common/train.py")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("gfl/r101_2x_ms.py", "mmdet://gfl_r101_fpn_mstrain_2x_coco"),
        ("gfl/pgd_r101_3x_ms.py", "output/gfl/pgd_r101_3x_ms/model_final.pth"),
        ("quickstart/teacher.py", "output/quickstart/teacher/model_final.pth"),
    ],
)
def test_a_teacher_has_the_published_weights_or_those_of_its_own_run(name, weights):
    teacher = known_teacher(name)
    assert (teacher.weights, teacher.model) == (weights, load(name).model)
    assert known_teacher(f"./{name}") == teacher


def test_changes_of_a_teacher_do_not_reach_another():
    first, second = (known_teacher("quickstart/teacher.py") for _ in range(2))
    first.model.num_classes, first.weights = 3, "other.pth"
    assert second == known_teacher("quickstart/teacher.py") != first


@pytest.mark.parametrize("name", ["gfl/r101_2x_ms", "gfl/r101_2x.py", "glf/r101_2x_ms.py"])
def test_an_unknown_teacher_is_an_error_that_names_close_matches(name):
    with pytest.raises(FileNotFoundError, match="Did you mean:\n(?:  .*\n)*  gfl/r101_2x_ms.py"):
        known_teacher(name)


def test_every_detector_whose_config_names_an_ap_of_a_zoo_has_weights_and_no_other():
    in_a_zoo = {name for name in FULL_RUNS if "(zoo: " in (ROOT / name).read_text()}
    assert set(PUBLISHED) == in_a_zoo - {"retinanet/mmdet_r18_1x.py"}  # our zoo has no name for it
    of_mmdet = [w.removeprefix("mmdet://") for w in PUBLISHED.values() if "mmdet://" in w]
    assert sorted(of_mmdet) == sorted(zoo.MMDET_URLS)


OVERRIDES = {
    "model.methods.bckd.loc_weight": 2,
    "model.init_student": True,
    "model.student.num_classes": 3,
    "model.teacher.model.num_classes": 3,
    "model.teacher.weights": "other.pth",
    "model.teacher.precision": "bfloat16",
    "train.max_iter": 5,
    "train.output_dir": "elsewhere",
    "train.amp.enabled": True,
    "train.clip_grad.max_norm": 1.0,
    "optimizer.lr": 0.5,
    "optimizer.params.weight_decay_norm": 0.1,
    "lr_multiplier.warmup_length": 0.5,
    "dataloader.train.total_batch_size": 4,
    "dataloader.train.mapper.image_format": "RGB",
}


@pytest.mark.parametrize("key", OVERRIDES)
def test_every_number_of_a_run_can_be_overridden_and_nothing_else_changes(run, key):
    cfg = apply_overrides(copy.deepcopy(run), [f"{key}={OVERRIDES[key]}"])
    assert OmegaConf.select(cfg, key) == OVERRIDES[key] != OmegaConf.select(run, key)
    expected = copy.deepcopy(run)
    OmegaConf.update(expected, key, OVERRIDES[key])
    assert cfg == expected


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("model.methods.bckd.loc_wieght=2", "loc_weight"),
        ("model.teacher.wieghts=other.pth", "weights"),
        ("train.max_itre=5", "max_iter"),
        ("optimizer.weigth_decay=0.5", "weight_decay"),
        ("dataloader.trian.num_workers=0", "train"),
        ("student.train.max_iter=5", "train.max_iter"),
        ("student.model.num_classes=3", "model.student.num_classes"),
        ("teacher.weights=other.pth", "model.teacher.weights"),
    ],
)
def test_misspelt_overrides_of_a_run_are_found(run, override, meant):
    with pytest.raises(RunError, match=f"did you mean {meant}"):
        apply_overrides(run, [override])


def test_misspelt_names_in_a_run_are_found(run_file):
    run_file.write_text(
        RUN.replace("loc_weight=4.0", "loc_wieght=4.0")
        + "train.max_itre = 5\noptimizer.rl = 0.5\nmodel.teacher.precison = None\n"
        + "dataloader.trian = dict()\ntrian = dict(max_iter=10)\n"
    )
    with pytest.raises(RunError) as error:
        check_run(LazyConfig.load(str(run_file)), "train")
    wrong = ("bckd.loc_wieght", "train.max_itre", "optimizer.rl", "model.teacher.precison")
    for name in (*wrong, "dataloader.trian", "- trian"):
        assert f"{name}: " in str(error.value)
    assert "dataloader.trian: " in str(error.value) and "trian: the run does not" in str(
        error.value
    )


def test_a_run_holds_its_parts_and_the_student_and_survives_yaml(run_file, tmp_path):
    cfg = LazyConfig.load(str(run_file))
    assert list(cfg) == ["student", *PARTS, "model"]
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "mine"]  # and no pickle
    loaded = load_config(str(tmp_path / "config.yaml"), ["train.max_iter=3"])
    loaded.model.teacher.weights = None
    assert isinstance(instantiate(loaded.model), Distiller) and loaded.train.max_iter == 3
