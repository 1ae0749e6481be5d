"""What only an evaluation, a later learning rate or the optimizer's step would trip over is said
before the first iteration."""

from __future__ import annotations

import argparse
import math
import random

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from omegaconf import OmegaConf

from dense_kd import engine
from dense_kd.checkpoint import CheckpointError
from dense_kd.engine import RunError
from dense_kd.engine.building import build_model
from dense_kd.engine.dry_run.evaluating import evaluator_in
from dense_kd.engine.evaluation import Evaluation
from dense_kd.engine.loaders import load_evaluation
from dense_kd.evaluation import COCOEvaluator as OurCOCOEvaluator
from dense_kd.evaluation import CrowdHumanEvaluator
from helpers.checked_runs import load, problems

ARGS = argparse.Namespace(resume=False)


def config(tmp_path, **values):
    cfg = load(f"train.output_dir={tmp_path / 'out'}", "train.max_iter=1", "train.eval_period=1")
    for place, value in values.items():
        OmegaConf.update(cfg, place.replace("__", "."), value, merge=False, force_add=True)
    return cfg


@pytest.fixture
def no_iteration(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("an iteration was started")

    monkeypatch.setattr("dense_kd.engine.trainer.Trainer.run_step", never)


def nothing(record):
    return {"file_name": record["file_name"]}


def none(record):
    return None


def an_array(record):
    return {"image": np.zeros((8, 9, 3))}


def broken(record):
    raise OverflowError("of the mapper")


class Other:
    """No evaluator."""


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("dataloader__test__mapper", -1, "dataloader.test .*mapper=-1: expected a DatasetMapper"),
        ("dataloader__test__mapper", None, "gives a dict with image=None for its first image"),
        ("dataloader__test__mapper", L(lambda: nothing)(), "a dict with image=None"),
        ("dataloader__test__mapper", L(lambda: an_array)(), r"image=a ndarray of \(8, 9, 3\)"),
        ("dataloader__test__mapper", L(lambda: broken)(), "png cannot be used: OverflowError"),
        ("dataloader__test__mapper", L(lambda: none)(), "gives None for .*png; expected a dict of"),
        ("dataloader__evaluator", [], "a list of none; expected what has reset, process, evalu"),
        (
            "dataloader__evaluator",
            [L(COCOEvaluator)(dataset_name="checked_val")] * 2,
            "has COCOEvaluator and COCOEvaluator, which all give 'bbox'",
        ),
        (
            "dataloader__evaluator",
            [L(kind)(dataset_name="checked_val") for kind in (COCOEvaluator, CrowdHumanEvaluator)],
            "has COCOEvaluator and CrowdHumanEvaluator, which all give 'bbox', and detectron2 keep",
        ),
        ("dataloader__evaluator", {"a": 1}, "is built as a DictConfig; expected"),
        ("dataloader__evaluator", L(Other)(), "is built as a Other; expected"),
        ("dataloader__evaluator__output_dir", "/proc/none", "nothing can be written to /proc"),
        ("dataloader__evaluator__output_dir", __file__, "is a file, expected a folder"),
        ("train__checkpointer__best", "bbox/APx", "no such metric; did you mean bbox/AP or"),
        ("train__checkpointer__best", "segm/AP", "no such metric; there is: bbox/AP, bbox/AP-cir"),
        ("dataloader__train__dataset", [], "dataloader.train cannot be built: .*dataset is empty"),
    ],
)
def test_what_an_evaluation_needs_is_looked_at_before_the_training(
    tmp_path, no_iteration, place, value, message
):
    cfg = config(tmp_path, **{place: value})
    with pytest.raises(RunError, match=f"(?s){message}"):
        engine.train(ARGS, cfg)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("optimizer__params__weight_decay_norm", -1, "norm.weight and 47 more a weight_decay=-1:"),
        ("optimizer__params__weight_decay_norm", [], r"more a weight_decay=\[\]: expected a finit"),
        ("optimizer__params__overrides", {"bias": {"lr": math.inf}}, "bias and .* more a lr=inf"),
        ("optimizer__params__overrides", {"bias": {"lr": "x"}}, "bias and .* more a lr='x'"),
        ("optimizer__params__overrides", {"weight": {"weight_decay": -0.1}}, "weight_decay=-0.1"),
    ],
)
def test_a_parameter_with_a_rate_or_a_decay_that_is_none_is_named(
    tmp_path, no_iteration, place, value, message
):
    cfg = config(tmp_path, **{place: value})
    with pytest.raises(RunError, match=f"(?s)optimizer.params gives .*{message}"):
        engine.train(ARGS, cfg)


@pytest.mark.parametrize("iterations", [7, 90_000])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("end_value=-0.5", "lr_multiplier gives -0."),
        ("start_value=-1", "lr_multiplier gives -0.04 at iteration 0 of"),
    ],
)
def test_every_learning_rate_of_a_run_is_looked_at(iterations, override, message):
    run = f"train.max_iter={iterations}"
    assert problems(run) == []
    (problem,) = problems(run, f"lr_multiplier.scheduler.{override}")
    assert message in problem and f"of {iterations}; expected a finite number" in problem


class Counting(DatasetEvaluator):
    def reset(self) -> None:
        self.images = 0

    def process(self, inputs, outputs) -> None:
        self.images += len(inputs)

    def evaluate(self) -> dict:
        return {"counted": {"images": float(self.images)}}


def test_a_training_is_evaluated_by_all_evaluators_of_a_list(tmp_path):
    several = [L(COCOEvaluator)(dataset_name="checked_val"), L(Counting)()]
    results = engine.train(ARGS, config(tmp_path, dataloader__evaluator=several))
    assert results["counted"]["images"] > 0 and "AP" in results["bbox"]


class Missing(Counting):
    """Misses less in its second evaluation than in the others."""

    metric_names = ("missed/MR", "missed/JI")
    lower_is_better = ("missed/MR",)
    rates = (60.0, 46.0, 80.0)

    def reset(self) -> None:
        super().reset()
        self.number = getattr(self, "number", -1) + 1

    def evaluate(self) -> dict:
        return {"missed": {"MR": self.rates[self.number % 3], "JI": 50.0}}


def test_the_model_that_misses_least_is_kept_as_the_best(tmp_path):
    cfg = config(tmp_path, dataloader__evaluator=L(Missing)(), train__max_iter=3)
    cfg.train.checkpointer.best = "missed/MR"
    engine.train(ARGS, cfg)
    content = torch.load(tmp_path / "out" / "model_best.pth", weights_only=True)
    assert content["best"] == {"metric": "missed/MR", "value": 46.0}
    assert content["iteration"] == 1


@pytest.mark.parametrize(
    ("kind", "metric", "said"),
    [
        (CrowdHumanEvaluator, "bbox/MRR", "no such metric; .*bbox/MR"),
        (Missing, "missed/AP", "no such metric; .*There is: missed/JI, missed/MR"),
    ],
)
def test_a_metric_that_an_evaluator_does_not_declare_is_refused_before_the_training(
    tmp_path, no_iteration, kind, metric, said
):
    evaluator = L(kind)() if kind is Missing else L(kind)(dataset_name="checked_val")
    cfg = config(tmp_path, dataloader__evaluator=evaluator, train__checkpointer__best=metric)
    with pytest.raises(RunError, match=said):
        engine.train(ARGS, cfg)
    with pytest.raises(RunError, match=said):
        evaluator_in(cfg, str(tmp_path))


@pytest.mark.parametrize("kind", [COCOEvaluator, OurCOCOEvaluator])
@pytest.mark.parametrize("together", [False, True], ids=["alone", "in a list"])
def test_the_metrics_that_are_known_before_are_those_that_are_found(tmp_path, kind, together):
    evaluator = L(kind)(dataset_name="checked_val")
    if together:
        evaluator = L(DatasetEvaluators)(evaluators=[evaluator])
    cfg = config(tmp_path, dataloader__evaluator=evaluator, model__test_score_thresh=0.0)
    evaluation = Evaluation(cfg)
    found = evaluation.run(build_model(cfg).eval())
    assert evaluation.metrics == {f"bbox/{name}" for name in found["bbox"]}


def test_the_best_by_a_class_waits_for_the_first_detections(tmp_path):
    cfg = config(
        tmp_path,
        dataloader__evaluator=L(COCOEvaluator)(dataset_name="checked_val"),
        train__checkpointer__best="bbox/AP-circle",
        model__test_score_thresh=1.0,
    )
    assert "AP-circle" not in engine.train(ARGS, cfg)["bbox"]


def test_metrics_of_other_evaluators_are_not_known_before(tmp_path):
    cfg = config(tmp_path, dataloader__evaluator=L(Counting)())
    assert Evaluation(cfg).metrics is None


def misfit(tmp_path) -> str:
    torch.save({"model": {"nothing.of.it": torch.zeros(1)}}, tmp_path / "misfit.pth")
    return str(tmp_path / "misfit.pth")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("train__checkpointer__best", lambda _: "bbox/APx"),
        ("train__init_checkpoint", misfit),
        ("dataloader__test__mapper", lambda _: L(lambda: broken)()),
    ],
)
def test_an_earlier_run_is_given_up_only_when_nothing_of_the_new_one_can_fail(
    tmp_path, no_iteration, place, value
):
    run = tmp_path / "out"
    run.mkdir()
    earlier = {"model_0000009.pth": b"1", "last_checkpoint": b"model_0000009.pth"}
    earlier["metrics.json"] = b"{}"
    for name, content in earlier.items():
        (run / name).write_bytes(content)
    cfg = config(tmp_path, train__overwrite=True, **{place: value(tmp_path)})
    with pytest.raises((RunError, CheckpointError)):
        engine.train(ARGS, cfg)
    assert {name: (run / name).read_bytes() for name in earlier} == earlier


def draws(record):
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        draw()
    return {"image": torch.zeros(3, 8, 8)}


def test_the_look_at_the_first_image_draws_nothing_from_the_run(tmp_path):
    cfg = config(tmp_path, dataloader__test__mapper=L(lambda: draws)())

    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    def after(action):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        action()
        return drawn()

    expected = after(lambda: None)
    assert after(lambda: load_evaluation(cfg, "train")) == expected
