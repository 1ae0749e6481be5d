"""Runs in which several detectors teach: trained, resumed, tried, replayed, and measured."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from dense_kd.benchmark.batches import synthetic_batch
from dense_kd.benchmark.measuring import Settings, Wanted, benchmark
from dense_kd.benchmark.models import Models, set_classes
from dense_kd.benchmark.schema import problems as schema_problems
from dense_kd.benchmark.text import as_text
from dense_kd.benchmark.work import Work
from dense_kd.checkpoint import load_strictly
from dense_kd.cli import main
from dense_kd.engine import train
from dense_kd.engine.building import build
from dense_kd.engine.comparison import recording
from dense_kd.engine.dry_run import dry_run
from dense_kd.engine.state import run_folder
from dense_kd.export.origin import origin_of
from helpers.checked_runs import load, problems
from helpers.configs import files_loaded_once
from helpers.script_runs import assert_equal, metrics
from helpers.tried_runs import trained

TWO = "quickstart/two_teachers.py"
SAVING = ("train.max_iter=2", "train.checkpointer.period=1", "train.log_period=1", "train.seed=3")
PHASES = (*SAVING, "model.methods.pkd.first_iter=1", "train.diagnostics.period=1")
OWN = "model.methods.pkd.teacher"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> tuple[str, str]:
    """Overrides that name files of two teachers which were never trained."""
    folder, model = tmp_path_factory.mktemp("teachers"), load(config=TWO).model
    detectors = {"model.teacher": model.teacher.model, OWN: model.methods.pkd.teacher.model}
    for number, detector in enumerate(detectors.values()):
        torch.manual_seed(number)
        torch.save({"model": instantiate(detector).state_dict()}, folder / f"{number}.pth")
    return tuple(f"{place}.weights={folder}/{n}.pth" for n, place in enumerate(detectors))


def config(teachers, output: Path, *overrides: str) -> DictConfig:
    of_run = (f"train.output_dir={output}", "train.device=cpu", "train.eval_period=0")
    return load(*teachers, *of_run, *overrides, config=TWO)


@pytest.fixture(scope="module")
def run(teachers, tmp_path_factory) -> tuple[DictConfig, dict]:
    """The config and the last checkpoint of a run that nobody stopped, whose second teacher comes
    in its second iteration."""
    output = tmp_path_factory.mktemp("run") / "output"
    cfg = config(teachers, output, *PHASES)
    return cfg, trained(cfg)


def test_a_run_trains_the_student_with_each_teacher_in_its_iterations(run):
    cfg, content = run
    first, second = metrics(Path(cfg.train.output_dir))[:2]
    assert first["kd_bckd_loss_loc"] > 0 and not any("kd_pkd" in name for name in first)
    assert second["kd_bckd_loss_loc"] > 0 and second["kd_pkd_loss_feature"] > 0
    assert second["diag/share_pkd"] > 0 and "diag/share_pkd" not in first
    assert content["model"]["kd.iteration"] == 2
    bare = build(cfg.model.student, "model.student")
    load_strictly(bare, f"{cfg.train.output_dir}/model_final.pth")


def test_a_run_that_is_gone_on_with_ends_as_one_that_was_not_stopped(run, teachers, tmp_path):
    trained(config(teachers, tmp_path / "out", *PHASES))
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000000.pth")
    found = trained(config(teachers, tmp_path / "out", *PHASES), resume=True)
    for part in ("model", "optimizer", "iteration"):
        assert_equal(found.get(part), run[1].get(part), part)


def test_a_run_is_tried_with_all_teachers_whenever_they_come(teachers, tmp_path):
    cfg = config(teachers, tmp_path / "out", "train.max_iter=9", "model.methods.pkd.first_iter=5")
    found = dry_run(cfg, num_images=2, num_steps=1)
    assert found.problems == [] and found.not_tried == []
    names = ["student", "teacher", "methods.pkd.teacher", "bckd", "pkd"]
    assert [model.name for model in found.models] == names
    assert {"kd_bckd_loss_loc", "kd_pkd_loss_feature"} < {loss.name for loss in found.losses}
    assert [*found.teachers] == ["teacher", "methods.pkd.teacher"]
    weak = [text for text in found.warnings if "finds next to nothing" in text]
    assert [text.partition(" finds")[0] for text in weak] == [
        *("the teacher", "the teacher of model.methods.pkd.teacher")
    ]
    assert "from iteration 5; tried as if it were that far" in found.text()
    missing = load(teachers[0], f"{OWN}.weights=none.pth", "train.device=cpu", config=TWO)
    found = dry_run(missing, num_images=1, num_steps=1)
    assert [p for p in found.problems if f"{OWN}.weights=none.pth does not exist" in p]
    assert found.losses and any(f"without {OWN}.weights" in text for text in found.warnings)
    assert [*found.teachers] == ["teacher"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([f"{OWN}.weights=null"], f"{OWN}.weights is null, so the teacher would be"),
        (["model.methods.pkd.first_iter=1"], "first_iter=1: it would never teach in train.max_it"),
        ([f"{OWN}.cache=memory", f"{OWN}.cach_gb=2"], f"{OWN}.cach_gb"),
        (
            [f"{OWN}.cache=memory", "dataloader.train.mapper.augmentations.0=null"],
            f"{OWN}.cache=memory: .*leave out the cache \\({OWN}.cache=null\\)",
        ),
    ],
)
def test_mistakes_about_it_are_found_before_the_first_batch(teachers, overrides, said):
    found = problems(*teachers, *overrides, config=TWO)
    assert any(re.search(said, each) for each in found), found


def test_a_cache_of_each_teacher_is_used(teachers, tmp_path, caplog):
    options = [f"{place}.cache={tmp_path / 'cache'}" for place in ("model.teacher", OWN)]
    one_size = "dataloader.train.mapper.augmentations=[]"
    often = ("train.max_iter=2", "train.log_period=1")
    cfg = config(teachers, tmp_path / "out", *options, one_size, *often)
    assert problems(*teachers, *options, one_size, config=TWO) == []
    with caplog.at_level("INFO", "dense_kd"):
        train(argparse.Namespace(resume=False), cfg)
    assert caplog.text.count("had 0 of 4 images") == 2
    first = metrics(tmp_path / "out")[0]
    assert {n for n in first if "hits" in n} == {"teacher_cache/hits", "teacher_cache/hits_pkd"}


def test_what_makes_its_parameters_mean_something_else_is_another_run():
    keys = ["kd.pkd.method.adapters.0.weight"]
    for name, is_another in (
        ("model.methods.pkd.method._target_", True),
        ("model.methods.pkd.method", True),
        ("model.methods.pkd._target_", True),
        ("model.methods.pkd.method.weight", False),
        ("model.methods.pkd.last_iter", False),
    ):
        assert run_folder._is_another_run(name, keys) == is_another, name


def test_files_of_all_teachers_are_kept_where_a_run_is_overwritten(run, teachers):
    folder = run[0].train.output_dir
    own = f"{OWN}.weights={folder}/model_final.pth"
    given = [teachers[0], own, f"train.output_dir={folder}", "train.overwrite=True"]
    (found,) = problems(*given, config=TWO)
    assert f"would remove {own}, which this run needs" in found


def test_a_step_that_went_wrong_is_run_again_from_the_same_files(teachers, tmp_path, capsys):
    files = {name: Path(name.partition("=")[2]) for name in teachers}
    own = tmp_path / "own.pth"
    shutil.copyfile(files[teachers[1]], own)
    options = [f"{OWN}.cache={tmp_path / 'cache'}", f"{OWN}.cache_gb=2"]
    options += ["dataloader.train.mapper.augmentations=[]"]
    options += ["train.max_iter=3", "optimizer.lr=1e30", f"{OWN}.weights={own}"]
    with pytest.raises(FloatingPointError):
        train(argparse.Namespace(resume=False), config(teachers, tmp_path / "out", *options))
    (kept,) = (tmp_path / "out" / "replay").iterdir()
    assert main(["replay", str(kept)]) == 0
    assert "the step fails as it did" in capsys.readouterr().out
    shutil.copyfile(files[teachers[0]], own)  # another teacher, of the same architecture
    assert main(["replay", str(kept)]) == 1
    assert re.search(f"{own}: is not the teacher .* at {OWN}", capsys.readouterr().err)
    own.unlink()
    assert main(["replay", str(kept)]) == 1
    assert "or is not there" in capsys.readouterr().err


def test_the_card_of_an_export_names_what_is_inside(run, teachers):
    facts = origin_of(run[0].train.output_dir).facts
    assert facts["methods"] == "BCKD, FromTeacher (PKD)"
    assert facts["weights of networks that teach"] == teachers[1].partition("=")[2]


def test_teachers_are_random_where_commits_are_compared(tmp_path):
    cfg = load(f"train.output_dir={tmp_path}", "train.seed=1", config=TWO)
    recording.use_random_teacher(cfg)
    (losses,) = recording.record(cfg, 1)
    assert losses["kd_pkd_loss_feature"] > 0 and losses["kd_bckd_loss_loc"] > 0


def test_its_parts_are_measured_apart():
    cfg = load("train.device=cpu", config=TWO)
    set_classes(cfg, 7)
    assert cfg.model.methods.pkd.teacher.model.num_classes == 7
    batch = synthetic_batch(1, (64, 96), 3, 5, 3)
    work = Work(cfg, Models(torch.device("cpu")).distiller(cfg), batch)
    passes = ["teacher", "pkd teacher"]
    assert [*work.teachers()] == passes and [*work.parts()][:3] == ["student", *passes]
    own, called = work.model.kd.pkd.teacher, []
    handle = own.model.backbone.register_forward_hook(lambda *_: called.append(1))
    work.method("pkd", work.inputs()).backward()
    assert called == []
    work.teachers()["pkd teacher"]()
    assert called == [1]
    handle.remove()


@pytest.mark.slow
def test_what_all_teachers_cost_counts_as_the_teachers():
    settings = Settings(device="cpu", threads=1, size=(64, 96), boxes=3, rounds=2, warmup=0)
    with torch.random.fork_rng(devices=[]), files_loaded_once():
        found = benchmark([Wanted("quickstart/two_teachers")], settings)
    assert schema_problems(found) == []
    (run,) = found["runs"]
    assert run["teacher"] == "FCOS and GFL"
    flops = {name: part["flops"] for name, part in run["parts"].items()}
    methods = [f"{name} {part}" for name in run["methods"] for part in ("forward", "backward")]
    parts = ["student", "teacher", "pkd teacher", *methods]
    assert flops["step"] == sum(flops[name] for name in parts)
    kernels = run["kernels"]
    assert kernels["pkd teacher"]["backward"] == 0 < kernels["pkd teacher"]["forward"]
    assert kernels["step"]["forward"] > sum(kernels[n]["forward"] for n in parts[:3])
    assert "with BCKD, FromTeacher" in as_text(found)
