"""Runs in which no detector teaches: trained, resumed, tried, evaluated, and what they refuse."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dense_kd import Distiller
from dense_kd.checkpoint import CheckpointError, load_strictly
from dense_kd.cli import main
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.hook import Diagnostics
from dense_kd.diagnostics.making import FigureMaker
from dense_kd.diagnostics.passes import run_passes
from dense_kd.engine import RunError, evaluate, train
from dense_kd.engine.building import build, build_model
from dense_kd.engine.comparison import recording
from dense_kd.engine.diagnosing import diagnose
from dense_kd.engine.dry_run import dry_run
from dense_kd.engine.mapping import write_maps
from dense_kd.engine.measuring import EvaluationDistances
from dense_kd.engine.replay.recording import FORMAT
from dense_kd.engine.replay.running import replay
from dense_kd.export.origin import origin_of
from dense_kd.methods import DistillationError
from helpers.checked_runs import DATA, load, problems
from helpers.script_runs import assert_equal, metrics
from helpers.tried_runs import trained, write_teacher

ALONE = "quickstart/dsi_alone.py"
SAVING = ("train.max_iter=2", "train.checkpointer.period=1", "train.log_period=1", "train.seed=3")


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    """The weights of the demo's network, which was never trained."""
    file = write_teacher(tmp_path_factory.mktemp("network") / "detector.pth")
    return f"model.methods.dsi.teacher.weights={file}"


def config(network: str, output: Path, *overrides: str, name: str = ALONE) -> DictConfig:
    return load(network, f"train.output_dir={output}", "train.device=cpu", *overrides, config=name)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory) -> tuple[DictConfig, dict]:
    """The config and the last checkpoint of a run that nobody stopped."""
    output = tmp_path_factory.mktemp("run") / "output"
    cfg = config(network, output, *SAVING, "train.diagnostics.period=1")
    return cfg, trained(cfg)


def test_a_run_trains_the_student_and_measures_its_shares_of_the_gradient(run):
    cfg, content = run
    lines = metrics(Path(cfg.train.output_dir))
    assert all(line["kd_dsi_loss_semantic"] > 0 for line in lines[:2])
    measured = {name for name in lines[0] if name.startswith("diag/")}
    assert measured == {"diag/share_dsi", "diag/share_detection", "diag/seconds"}
    assert lines[0]["diag/share_dsi"] + lines[0]["diag/share_detection"] == pytest.approx(1)
    own = {key for key in content["model"] if key.startswith("kd.")}
    assert own == {"kd.dsi.projector.weight", "kd.dsi.projector.bias"}


def test_a_run_that_is_gone_on_with_ends_as_one_that_was_not_stopped(run, network, tmp_path):
    _, expected = run
    options = (*SAVING, "train.diagnostics.period=1")
    trained(config(network, tmp_path / "out", *options, "train.max_iter=1"))
    found = trained(config(network, tmp_path / "out", *options), resume=True)
    for part in ("model", "optimizer", "iteration"):
        assert_equal(found.get(part), expected.get(part), part)


def test_null_in_place_of_a_teacher_is_the_same_run(run, network, tmp_path):
    cfg = config(network, tmp_path / "out", *SAVING, "model.teacher=null", "train.eval_period=0",
                 name="quickstart/dsi.py")  # fmt: skip
    assert cfg.model.teacher is None
    assert_equal(trained(cfg)["model"], run[1]["model"])


def test_its_student_is_evaluated_and_stands_alone(run):
    cfg = run[0].copy()
    cfg.train.init_checkpoint = f"{cfg.train.output_dir}/model_final.pth"
    cfg.model.methods.dsi.teacher.weights = "of another machine.pth"  # it is not read
    cfg.model.student.test_score_thresh = 0.0
    assert math.isfinite(evaluate(cfg)["bbox"]["AP"])
    load_strictly(build(cfg.model.student, "model.student"), cfg.train.init_checkpoint)


def test_a_run_is_tried_without_a_teacher(network, tmp_path):
    cfg = config(network, tmp_path / "out")
    found = dry_run(cfg, num_images=2, num_steps=1)
    assert found.problems == [] and found.fits and found.not_tried == []
    assert [model.name for model in found.models] == ["student", "dsi"]
    assert found.teachers == {} and all(level.teacher is None for level in found.levels)
    shares = {loss.name: loss.share for loss in found.losses}
    assert shares["kd_dsi_loss_semantic"] > 0 and sum(shares.values()) == pytest.approx(1)
    assert "\nteacher" not in found.text() and "teacher" not in found.text().split("losses")[0]
    missing = config("model.methods.dsi.teacher.weights=none.pth", tmp_path / "out")
    found = dry_run(missing, num_images=1, num_steps=1)
    assert len(found.problems) == 1 and "teacher.weights=none.pth" in found.problems[0]
    assert found.losses and any("random numbers" in text for text in found.warnings)


def test_what_is_of_a_teacher_is_refused_before_the_first_batch(network):
    common = [network, "train.maps.period=1", "train.diagnostics.images=2"]
    found = problems(*common, config=ALONE)
    assert found == [
        "train.diagnostics.images=2: what is measured is of student and teacher, and model.teacher "
        "is null; leave it at 0",
        "train.maps.period=1: maps are of student and teacher, and model.teacher is null; leave it "
        "at 0",
    ]
    assert problems(network, config=ALONE) == []
    (found,) = problems(network, config=ALONE, mode="evaluate_teacher")
    assert "model.teacher is null; --eval-teacher needs the config of a Distiller with" in found
    half = [network, "model.teacher.weights=teacher.pth"]
    (found,) = problems(*half, config=ALONE, mode="evaluate_teacher")
    assert "model has no teacher; --eval-teacher needs" in found
    with pytest.raises(RunError, match="teacher is a .*DictConfig, expected a dense_kd Teacher"):
        build_model(load(*half, "train.device=cpu", config=ALONE))


def test_what_compares_student_and_teacher_is_refused_and_says_what_it_needs(network, tmp_path):
    of_one = [*DATA, network]
    for what in ("conflicts", "distances"):
        with pytest.raises(RunError, match=f"{what} are of a detector that is the teacher, and"):
            diagnose("quickstart/dsi_alone", of_one, what=[what])
    image = tmp_path / "image.png"
    image.touch()
    with pytest.raises(RunError, match="maps are of a detector that is the teacher, and model.te"):
        write_maps("quickstart/dsi_alone", of_one, [str(image)], what=["tid"])
    model: Distiller = build(load(network, config=ALONE).model, "model")
    for refused in (
        lambda: EvaluationDistances(load(), model, 1),
        lambda: FigureMaker(model, ["crosskd"]),
        lambda: run_passes(model, []),
    ):
        with pytest.raises(DistillationError, match="needs a detector that is the teacher.*none"):
            refused()
    with pytest.raises(DiagnosticsError, match="expected a Distiller"):
        Diagnostics(model.student, 1)


def test_methods_that_read_a_teacher_are_named_where_it_is_null():
    cfg = load("model.teacher=null", "train.device=cpu", config="quickstart/distill.py")
    with pytest.raises(DistillationError, match=r"teacher=None, but the methods \['bckd'\] read"):
        build_model(cfg)


def test_a_step_that_went_wrong_is_run_again(network, tmp_path, capsys):
    cfg = config(network, tmp_path / "out", "train.max_iter=3", "optimizer.lr=1e30")
    with pytest.raises(FloatingPointError):
        train(argparse.Namespace(resume=False), cfg)
    (kept,) = (tmp_path / "out" / "replay").iterdir()
    assert main(["replay", str(kept)]) == 0
    assert "the step fails as it did" in capsys.readouterr().out
    assert main(["replay", str(kept), "--teacher", "other.pth"]) == 1
    assert "a step without a teacher that has a file, so other.pth would" in capsys.readouterr().err


def test_a_step_with_a_teacher_is_not_run_with_a_config_without_one(tmp_path):
    content = {"replay": FORMAT, "device": "cpu", "description": None, "incomplete": "",
               "teachers": {"model.teacher": {"weights": "t.pth", "digest": ""}}}  # fmt: skip
    torch.save(content, tmp_path / "step.pth")
    with pytest.raises(CheckpointError, match=r"teacher \(model.teacher, t.pth\), and .* has none"):
        replay(str(tmp_path / "step.pth"), config="quickstart/dsi_alone")


def test_the_card_of_an_export_names_the_network_and_no_teacher(run, network):
    facts = origin_of(run[0].train.output_dir).facts
    assert facts["methods"] == "DSI" and not any("teacher" in name for name in facts)
    assert facts["weights of networks that teach"] == network.partition("=")[2]


def test_a_file_is_converted_for_its_student_only(run, tmp_path):
    source, target = f"{run[0].train.output_dir}/model_final.pth", str(tmp_path / "student.pth")
    arguments = ["convert", source, target, "--config", "quickstart/dsi_alone"]
    assert main(arguments) == 1 and not Path(target).exists()
    assert main([*arguments, "--part", "student"]) == 0
    load_strictly(build(run[0].model.student, "model.student"), target)


def test_a_file_that_a_run_needs_is_not_removed_for_it(run):
    folder = run[0].train.output_dir
    own = f"model.methods.dsi.teacher.weights={folder}/model_final.pth"
    (found,) = problems(own, f"train.output_dir={folder}", "train.overwrite=True",
                        config=ALONE)  # fmt: skip
    assert f"would remove {own}, which this run needs" in found


def test_networks_are_random_where_teachers_are(tmp_path):
    cfg = load(f"train.output_dir={tmp_path}", "train.seed=1", config="quickstart/dsi.py")
    recording.use_random_teacher(cfg)
    of_both = cfg.model.teacher.weights, cfg.model.methods.dsi.teacher.weights
    assert of_both == tuple(f"{tmp_path}/random_teacher_{number}.pth" for number in (0, 1))
    cfg = load(f"train.output_dir={tmp_path / 'alone'}", "train.seed=1", config=ALONE)
    (tmp_path / "alone").mkdir()
    recording.use_random_teacher(cfg)
    (losses,) = recording.record(cfg, 1)
    assert losses["kd_dsi_loss_semantic"] > 0
