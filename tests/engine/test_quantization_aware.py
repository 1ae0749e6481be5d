"""A run whose student computes as if in 8-bit integers."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate

from dense_kd.checkpoint import load_strictly
from dense_kd.engine.building import build_training_model
from dense_kd.engine.evaluation import Evaluation
from dense_kd.engine.processes import read_metrics
from dense_kd.engine.replay.recording import described_step
from dense_kd.engine.run import evaluate
from dense_kd.quantization import FakeQuantization
from helpers.checked_runs import problems
from helpers.saved_runs import saved
from helpers.tried_runs import trained, two_iterations, write_teacher

SWITCH = "train.quantization_aware=True"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def test_the_student_alone_is_rounded(teacher, tmp_path):
    model = build_training_model(two_iterations(teacher, tmp_path, SWITCH))
    assert isinstance(model.student.fake_quantization, FakeQuantization)
    assert not any(isinstance(m, FakeQuantization) for m in model.teacher.model.modules())
    plain = build_training_model(two_iterations(teacher, tmp_path))
    assert not any(isinstance(m, FakeQuantization) for m in plain.modules())


def test_it_trains_saves_the_plain_student_and_goes_on_exactly(teacher, tmp_path):
    plain = trained(two_iterations(teacher, tmp_path / "plain"))["model"]
    rounded = trained(two_iterations(teacher, tmp_path / "rounded", SWITCH))
    assert plain.keys() == rounded["model"].keys()
    first, again = (read_metrics(tmp_path / run)[0] for run in ("plain", "rounded"))
    losses = [name for name in first if "loss" in name]
    assert {n: again[n] for n in losses} == pytest.approx({n: first[n] for n in losses}, rel=0.2)
    assert any(first[name] != again[name] for name in losses)
    saved = rounded["trainer"]["training_buffers"]
    assert {"fake_quantization.lowest", "fake_quantization.highest"} <= saved.keys()
    (tmp_path / "rounded" / "model_final.pth").unlink()
    (tmp_path / "rounded" / "last_checkpoint").write_text("model_0000000.pth")
    resumed = trained(two_iterations(teacher, tmp_path / "rounded", SWITCH), resume=True)
    for name, value in rounded["model"].items():
        assert torch.equal(value, resumed["model"][name]), name
    student = instantiate(two_iterations(teacher, tmp_path).model.student)
    load_strictly(student, str(tmp_path / "rounded" / "model_final.pth"))


@pytest.mark.parametrize(
    ("trained_with", "evaluated_with", "said"),
    [([SWITCH], [SWITCH], 1), ([SWITCH], [], 1), ([], [SWITCH], 1), ([], [], 0)],
)
def test_an_evaluation_of_its_weights_is_in_floats_and_says_so(
    teacher, tmp_path, caplog, monkeypatch, trained_with, evaluated_with, said
):
    """Whether the config says it or the checkpoint."""
    cfg = two_iterations(teacher, tmp_path / "run", *trained_with)
    saved(cfg, 2, "model_final")
    weights = instantiate(cfg.model.student).state_dict()
    file = tmp_path / "run" / "model_final.pth"
    torch.save({**torch.load(file, weights_only=True), "model": weights}, file)
    ran = []
    monkeypatch.setattr(Evaluation, "run", lambda self, model: ran.append(model) or {})
    cfg = two_iterations(teacher, tmp_path / "eval", *evaluated_with)
    cfg.train.init_checkpoint = str(file)
    assert evaluate(cfg) == {}
    assert not any(isinstance(module, FakeQuantization) for module in ran[0].modules())
    assert caplog.text.count("These metrics are of the weights in floats") == said
    assert caplog.text.count("dense-kd export RUN --to onnx --int8 evaluates both") == said


def test_the_training_itself_evaluates_the_rounded_student(teacher, tmp_path, caplog, monkeypatch):
    ran = []
    monkeypatch.setattr(Evaluation, "run", lambda self, model, leaves: ran.append(model) or {})
    trained(two_iterations(teacher, tmp_path, SWITCH))
    assert all(isinstance(model.student.fake_quantization, FakeQuantization) for model in ran)
    assert ran and "in floats" not in caplog.text


def test_a_step_that_is_kept_for_a_replay_says_it(teacher, tmp_path):
    described = described_step(two_iterations(teacher, tmp_path, SWITCH), {})
    assert described["train"]["quantization_aware"] is True


def test_what_is_no_switch_is_refused():
    (problem,) = problems("train.quantization_aware=int8")
    assert "train.quantization_aware" in problem
