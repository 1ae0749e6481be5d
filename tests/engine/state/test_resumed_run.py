"""A run goes on with what its folder says."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from dense_kd import BCKD, MGD, from_detectron2
from dense_kd.checkpoint import read_content
from dense_kd.engine.state import run_folder
from helpers.builders import fcos_config, retinanet_config
from helpers.saved_runs import config, distillation, names, saved


def both() -> dict:
    return {"bckd": L(BCKD)(), "mgd": L(MGD)()}


def without_mgd() -> DictConfig:
    return distillation(bckd=L(BCKD)())


def mgd_of_another_class() -> DictConfig:
    return distillation(bckd=L(BCKD)(), mgd=L(BCKD)())


def another_student() -> DictConfig:
    model = distillation(**both())
    model.student = from_detectron2(retinanet_config())
    return model


@pytest.mark.parametrize(
    "model, overrides, named",
    [
        (fcos_config, [], "model._target_: 'dense_kd.Distiller' -> "),
        (another_student, [], "model.student._target_"),
        (without_mgd, [], "model.methods.mgd: MGD() -> (absent)"),
        (mgd_of_another_class, [], "model.methods.mgd._target_"),
        (None, ["optimizer._target_=torch.optim.SGD"], "optimizer._target_"),
        (None, ["model.student.head._target_=dense_kd.ATSSHead"], "model.student.head._target_"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, model, overrides, named):
    cfg = config(tmp_path, model=distillation(**both()))
    saved(cfg, 500, None, "generator")
    other = config(
        tmp_path, *overrides, model=model() if model is not None else distillation(**both())
    )
    (problem,) = run_folder.problems(other, resume=True)
    assert "another run" in problem and named in problem
    assert run_folder.problems(cfg, resume=True) == []


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.5",
        "optimizer.weight_decay=0.5",
        "lr_multiplier.warmup_factor=0.5",
        "model.methods.bckd.cls_weight=0.5",
        "model.methods.bckd._target_=dense_kd.KD",
        "model.teacher.weights=other.pth",
        "model.teacher.model._target_=dense_kd.ATSS",
        "model.student.test_score_thresh=0.5",
        "train.max_iter=2000",
        "train.accumulate=2",
        "train.amp.enabled=true",
        "train.clip_grad.max_norm=1.0",
        "dataloader.train.total_batch_size=8",
        "dataloader.train.dataset.names=shapes_val",
    ],
)
def test_what_can_be_continued_otherwise_is_and_is_said(tmp_path, override):
    cfg = config(tmp_path, model=distillation(**both()))
    saved(cfg, 500, None, "generator")
    other = config(tmp_path, override, model=distillation(**both()))
    assert run_folder.problems(other, resume=True) == []
    remark = run_folder.remarks(other, resume=True)
    name, value = override.split("=")
    assert f"{name}: " in remark and value.lower() in remark.lower()
    assert remark.count(" -> ") == 2  # of the heading and of the one change
    assert run_folder.remarks(cfg, resume=True) == ""


def test_changes_of_a_run_that_is_done_are_said_to_change_nothing(tmp_path):
    saved(config(tmp_path), 1000, "model_final")
    other = config(tmp_path, "optimizer.lr=0.5")
    assert "All 1000 iterations are done" in run_folder.remarks(other, resume=True)
    assert "optimizer.lr: 0.002 -> 0.5" in run_folder.remarks(other, resume=True)


@pytest.mark.parametrize("name", ["train.seed", "dataloader.train.seed", "train.init_checkpoint"])
def test_what_a_resumed_run_does_not_go_by_is_said_too(tmp_path, name):
    cfg = config(tmp_path)
    saved(cfg, 500)
    value = "other.pth" if name.endswith("checkpoint") else 7
    OmegaConf.update(cfg, name, value)
    assert f"{value} (not used: " in run_folder.remarks(cfg, resume=True).replace("'", "")


def test_resuming_needs_a_checkpoint_that_can_be_gone_on_from(tmp_path):
    cfg = config(tmp_path)
    assert run_folder.problems(cfg, resume=True) == []
    assert "begins at iteration 0" in run_folder.remarks(cfg, resume=True)

    saved(cfg, 500)
    (problem,) = run_folder.problems(config(tmp_path, "train.max_iter=400"), resume=True)
    assert "500 iterations" in problem and "train.max_iter=400" in problem
    assert run_folder.problems(config(tmp_path, "train.max_iter=500"), resume=True) == []
    (problem,) = run_folder.problems(config(tmp_path, "train.overwrite=true"), resume=True)
    assert "use one of them" in problem

    (tmp_path / "last_checkpoint").rename(tmp_path / "lost")
    assert run_folder.problems(cfg, resume=True) == []  # killed before it was written
    (problem,) = run_folder.problems(cfg, resume=False)
    assert "an unfinished run (model_0000499.pth" in problem
    other = tmp_path / "model_0000249.pth"
    other.write_bytes((tmp_path / "model_0000499.pth").read_bytes())
    (problem,) = run_folder.problems(cfg, resume=True)
    assert "model_0000249.pth, model_0000499.pth, but no last_checkpoint" in problem
    other.unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000999.pth")
    (problem,) = run_folder.problems(cfg, resume=True)
    assert "model_0000999.pth does not exist" in problem and "model_0000499.pth" in problem

    weights = {"model": {"weight": torch.zeros(1)}}
    for content in (
        weights,
        {**weights, "trainer": None},
        {**weights, "trainer": {"iteration": "3"}},
    ):
        torch.save(content, tmp_path / "model_0000999.pth")
        (problem,) = run_folder.problems(cfg, resume=True)
        assert "without the state of a training run" in problem


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"mod\xe5l_0000499.pth", "is damaged: b'mod\\xe5l_0000499.pth' is no name of a file"),
        (b"\0\0\0", "is damaged: b'\\x00\\x00\\x00' is no name"),
    ],
)
def test_a_last_checkpoint_without_a_name_is_said_before_a_run_begins(
    tmp_path, content, said, checkpoint
):
    cfg = config(tmp_path)
    saved(cfg, 500)
    if not checkpoint:
        (tmp_path / "model_0000499.pth").unlink()
    (tmp_path / "last_checkpoint").write_bytes(content)
    (problem,) = run_folder.problems(cfg, resume=True)
    there = "model_0000499.pth" if checkpoint else "no checkpoint"
    assert f"last_checkpoint {said}" in problem and problem.endswith(f"there is {there}")
    assert "write the name of the checkpoint to go on with into it" in problem
    (problem,) = run_folder.problems(cfg, resume=False)
    assert "a run whose last_checkpoint names no file" in problem
    other = config(tmp_path, "train.overwrite=true")
    assert run_folder.problems(other, resume=False) == []
    assert run_folder.remarks(other, resume=False) == ""
    run_folder.clear(other)
    assert names(tmp_path) == set()


def test_an_older_checkpoint_without_a_config_is_resumed_and_that_is_said(tmp_path):
    content = {"model": {}, "trainer": {"iteration": 9}, "iteration": 9}
    torch.save(content, tmp_path / "model_0000009.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    assert run_folder.problems(config(tmp_path), resume=True) == []
    assert "does not hold the config" in run_folder.remarks(config(tmp_path), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_the_last_checkpoint_is_read_once_and_again_if_it_changes(tmp_path, monkeypatch, resume):
    read: list[str] = []

    def counted(path: str):
        read.append(path)
        return read_content(path)

    monkeypatch.setattr("dense_kd.engine.state.run_summary.read_content", counted)
    cfg = config(tmp_path)
    saved(cfg, 500)
    other = config(tmp_path, "optimizer.lr=0.5")
    for _ in range(2):
        run_folder.problems(other, resume)
        assert run_folder.remarks(other, resume=True)
    assert len(read) == 1
    saved(other, 500)
    assert run_folder.remarks(other, resume=True) == ""
    assert len(read) == 2
