"""The command line: where overrides may stand, and options that do not go together."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler

from dense_kd import FCOS, get_config_file
from dense_kd.engine import RunError, check_run
from dense_kd.engine.command import load_checked
from helpers import script_runs
from helpers.checked_runs import load, problems

STUDENT = get_config_file("quickstart/student.py")
DISTILL = get_config_file("quickstart/distill.py")


def parsed(*argv: str, config: str = STUDENT):
    return script_runs.parsed("--config-file", config, *argv)


def test_options_may_follow_overrides():
    args = parsed("train.max_iter=5", "--resume", "train.seed=-1", "--num-gpus", "2", "lr=1")
    assert args.resume and args.num_gpus == 2
    assert args.opts == ["train.max_iter=5", "train.seed=-1", "lr=1"]


@pytest.mark.parametrize(
    "argv",
    [
        ["quickstart/distill", "a.b=1", "--resume", "c=2"],
        ["--resume", "a.b=1", "quickstart/distill", "c=2"],
        ["--config-file", "quickstart/distill", "a.b=1", "c=2", "--resume"],
    ],
)
def test_the_config_is_what_is_no_override_wherever_it_stands(argv):
    args = script_runs.parsed(*argv)
    assert (args.config_file, args.opts) == ("quickstart/distill", ["a.b=1", "c=2"])


def test_the_help_shows_lazy_configs_only(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    assert "model.methods.bckd.loc_weight=2" in text and "--eval-teacher" in text
    assert "yacs" not in text.lower() and "SOLVER" not in text and ".yaml" not in text


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--eval-only", "--eval-teacher"], "give one of them"),
        (["--eval-only", "--resume"], "--resume is for training"),
        (["--num-gpus", "0"], "expected 1 or more"),
        (["--num-machines", "2", "--machine-rank", "2"], "expected 0 to 1"),
        (["--num-machines", "2", "--dist-url", "auto"], "is for one machine"),
        (["--num-machines", "2"], "expected --dist-url tcp://HOST:PORT"),
        (["--eval-only"], "nothing to evaluate"),
        (["--eval-teacher"], "needs the config of a Distiller"),
        (["--eval-only", "train.init_checkpoint=/none/model_final.pth"], "does not exist"),
        (["train.max_iter", "5"], "with ="),
    ],
)
def test_options_that_cannot_be_followed_are_refused(argv, expected):
    with pytest.raises(RunError, match=expected):
        load_checked(parsed(*argv))


def test_the_checkpoint_of_a_finished_run_is_proposed_for_evaluation(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (found,) = problems(f"train.output_dir={tmp_path}", mode="evaluate")
    assert f"train.init_checkpoint={tmp_path}/model_final.pth" in found


def test_files_that_are_near_a_missing_checkpoint_are_named(tmp_path):
    for name in ("model_final.pth", "model_0000999.pth"):
        (tmp_path / name).touch()
    (found,) = problems(f"train.init_checkpoint={tmp_path}/model_finl.pth")
    assert "did you mean model_final.pth" in found
    (found,) = problems(f"train.init_checkpoint={tmp_path}")
    assert "is a folder" in found


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("null", "would be a FCOS with random numbers"),
        ("''", "would learn from noise"),
        ("/none/teacher.pth", "does not exist"),
        ("[]", "weights=[]: expected the name of a file"),
        ("mmdet://gfl_r101_fpn", "did you mean"),
    ],
)
def test_a_teacher_without_weights_is_refused_where_it_is_needed(weights, expected):
    overrides = [f"model.teacher.weights={weights}"]
    for mode in ("train", "evaluate_teacher"):
        (found,) = problems(*overrides, config="quickstart/distill.py", mode=mode)
        assert expected in found
    assert problems(
        *overrides, f"train.init_checkpoint={__file__}", config="quickstart/distill.py",
        mode="evaluate",
    ) == []  # fmt: skip


def test_a_batch_is_shared_evenly_by_the_processes():
    (found,) = problems("dataloader.train.total_batch_size=5", num_processes=2)
    assert "expected a multiple of the 2 processes" in found and "4 is one" in found
    assert problems("dataloader.train.total_batch_size=6", num_processes=2) == []


def test_gpus_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (found,) = problems("train.device=cuda")
    assert "Give train.device=cpu" in found
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    (found,) = problems("train.device=cuda:2")
    assert "the last is cuda:1" in found
    batch = "dataloader.train.total_batch_size=8"
    (found,) = problems("train.device=cuda", batch, num_processes=8, per_machine=8)
    assert "--num-gpus 8: there are 2 GPUs" in found
    (found,) = problems("train.device=cuda:0", num_processes=2, per_machine=2)
    assert "each takes its own" in found
    assert problems("train.device=cuda", num_processes=2, per_machine=2) == []
    (found,) = problems("train.device=cpu", num_processes=2, per_machine=2)
    assert "NCCL" in found


def with_entry(name: str, entry):
    cfg = load("train.device=cpu")
    cfg[name] = entry(cfg) if callable(entry) else entry
    return cfg


@pytest.mark.parametrize(
    "name, entry, part",
    [
        ("trian", {"max_iter": 5}, "train"),
        ("dataloder", {"train": {"total_batch_size": 4}}, "dataloader"),
        ("data_loader", {"test": {"num_workers": 0}}, "dataloader"),
        ("optimzer", L(torch.optim.AdamW)(lr=0.1), "optimizer"),
        ("optimiser", L(torch.optim.SGD)(lr=0.1), "optimizer"),
        ("lr_multipler", L(WarmupParamScheduler)(warmup_factor=0.1), "lr_multiplier"),
        ("modle", L(FCOS)(num_classes=4), "model"),
    ],
)
def test_slips_at_the_top_of_a_config_are_found(name, entry, part):
    with pytest.raises(RunError, match=f"{name}: .*did you mean {part}?"):
        check_run(with_entry(name, entry), "train")
    cfg = with_entry(name, entry)
    del cfg[part]
    with pytest.raises(RunError, match=f"no '{part}'.*is '{name}' meant to be it"):
        check_run(cfg, "train")


@pytest.mark.parametrize(
    "name, entry",
    [
        ("optim", {"lr": 1}),
        ("optim", L(torch.optim.AdamW)(lr=0.1)),
        ("optimizers", {"sgd": {"lr": 0.1}}),
        ("trains", {"a": 1}),
        ("trainer", {"max_iter": 5}),
        ("training", {"max_iter": 5, "output_dir": "out"}),
        ("train_args", {"max_iter": 5}),
        ("train_loader", {"num_workers": 2}),
        ("trial", {"seed": 3}),
        ("models", [1, 2]),
        ("modes", L(FCOS)()),
        ("model_args", {"num_classes": 3}),
        ("lr_multiplier_of", "${nothing}"),
        ("modle", "???"),
        ("model2", L(FCOS)(num_classes=3)),
        ("node", {"num_classes": 3}),
        ("data", {"train": 1}),
        ("loader", {"train": {"num_workers": 2}}),
        ("data_loader", {"batch": 2}),
        ("data_loaders", lambda cfg: copy.deepcopy(cfg.dataloader)),
        ("optimiser", lambda cfg: copy.deepcopy(cfg.optimizer)),
        ("optimiser", {"lr": 0.1}),
        ("scheduler", L(WarmupParamScheduler)(warmup_length=0)),
        ("lr", 0.1),
        ("tran", None),
    ],
)
def test_a_config_may_have_variables_of_its_own(name, entry):
    check_run(with_entry(name, entry), "train")
