"""A run begins where no other is."""

from __future__ import annotations

import os
import sys
import types

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from PIL import Image

import dense_kd
from dense_kd import BCKD, get_config
from dense_kd.checkpoint import AtomicCheckpointer, read_content, read_weights
from dense_kd.engine.drawn_maps import save_drawn
from dense_kd.engine.state import run_folder
from dense_kd.engine.state.stored_config import StoredConfig, config_changes, plain_config
from helpers.saved_runs import config, distillation, names, saved


@pytest.fixture(scope="module", params=["quickstart/distill.py", "bckd/gfl_r101_r50_1x.py"])
def checkpoint_of(request, tmp_path_factory) -> tuple[str, str, dict]:
    """(A config's name, a checkpoint with that config, what it is without calls)."""
    cfg = get_config(request.param)
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    AtomicCheckpointer(torch.nn.Linear(1, 1), folder, config=StoredConfig(cfg)).save("model")
    return request.param, os.path.join(folder, "model.pth"), plain_config(cfg)


@pytest.mark.parametrize("part", ["model", "optimizer", "dataloader", "lr_multiplier", "train"])
def test_the_config_in_a_checkpoint_is_plain(checkpoint_of, part):
    _, path, plain = checkpoint_of
    assert read_content(path)["config"][part] == plain[part]


def test_the_config_in_a_checkpoint_is_equal_when_loaded_again(checkpoint_of):
    name, path, _ = checkpoint_of
    assert config_changes(read_content(path)["config"], get_config(name)) == {}
    assert set(read_weights(path)) == {"weight", "bias"}


def test_a_config_may_call_functions_of_its_own(tmp_path):
    """They have no module, as detectron2 executes a config file."""
    file = tmp_path / "own.py"
    file.write_text(
        "from detectron2.config import LazyCall as L\n"
        "def decay(step, rate=0.5): return rate**step\n"
        "class Decay: pass\n"
        "lr_multiplier = dict(a=L(decay)(rate=0.1), b=L(Decay)(), norm=lambda channels: None)\n"
    )
    plain = plain_config(LazyConfig.load(str(file)))["lr_multiplier"]
    assert plain["a"] == {"_target_": "decay", "rate": 0.1} and "<lambda>" in plain["norm"]
    assert config_changes({"lr_multiplier": plain}, LazyConfig.load(str(file))) == {}


def test_changes_are_told_by_dotted_name(tmp_path):
    cfg = config(tmp_path, model=distillation(bckd=L(BCKD)(cls_weight=1.0)))
    other = config(
        tmp_path / "elsewhere",
        "optimizer.lr=0.5",
        "train.amp.enabled=true",
        "dataloader.train.total_batch_size=8",
        "train.clip_grad=null",
        model=distillation(bckd=L(BCKD)(cls_weight=4.0), extra=L(BCKD)(loc_weight=2.0)),
    )
    other.lr_multiplier.warmup_factor = [1, 2]
    other.train.overwrite = True
    assert config_changes(plain_config(cfg), other) == {
        "optimizer.lr": "0.002 -> 0.5",
        "train.amp.enabled": "False -> True",
        "dataloader.train.total_batch_size": "16 -> 8",
        "train.clip_grad": "dict(max_norm=10.0, norm_type=2.0) -> None",
        "lr_multiplier.warmup_factor": "0.04 -> [1, 2]",
        "model.methods.bckd.cls_weight": "1.0 -> 4.0",
        "model.methods.extra": "(absent) -> BCKD(loc_weight=2.0)",
    }


@pytest.mark.parametrize(
    "saved_name, moved",
    [
        ("dense_kd.methods.an_old_place.BCKD", True),
        ("dense_kd.methods.bckd.BCKD", True),  # by hand; the public name is dense_kd.BCKD
        ("dense_kd.methods.an_old_place.NotBCKD", False),
        ("dense_kd.methods.an_old_place.BCKD.of", False),
        ("another_project.BCKD", False),
        ("dense_kd.CrossKD", False),
    ],
)
def test_a_class_of_ours_that_lay_elsewhere_has_not_changed(tmp_path, saved_name, moved):
    cfg = config(tmp_path, model=distillation(bckd=L(BCKD)()))
    plain = plain_config(cfg)
    assert plain["model"]["methods"]["bckd"]["_target_"] == "dense_kd.BCKD"
    plain["model"]["methods"]["bckd"]["_target_"] = saved_name
    place = "model.methods.bckd._target_"
    assert list(config_changes(plain, cfg)) == ([] if moved else [place])


@pytest.mark.parametrize("channels, changed", [(16, False), (8, True)])
def test_a_shape_is_the_same_as_a_tuple_and_with_names(tmp_path, channels, changed):
    """As which it is stored depends on the version of detectron2."""
    cfg = config(tmp_path)
    plain = plain_config(cfg)
    names = {"channels": channels, "height": None, "width": None, "stride": None}
    for shape in (names, [*names.values()]):
        plain["model"]["head"]["input_shape"] = [shape] * 3
        found = [name.removesuffix(".channels") for name in config_changes(plain, cfg)]
        assert found == [f"model.head.input_shape.{level}" for level in range(3 * changed)]


def test_a_list_that_became_a_mapping_of_the_same_values_is_a_change(tmp_path):
    plain = plain_config(config(tmp_path))
    plain["train"]["checkpointer"] = [*plain["train"]["checkpointer"].values()]
    assert list(config_changes(plain, config(tmp_path))) == ["train.checkpointer"]


def test_another_class_of_ours_with_the_same_name_is_a_change(tmp_path, monkeypatch):
    twin = types.ModuleType("dense_kd.twin")
    twin.BCKD = type("BCKD", (BCKD,), {})
    monkeypatch.setitem(sys.modules, twin.__name__, twin)
    monkeypatch.setattr(dense_kd, "twin", twin, raising=False)
    cfg = config(tmp_path, model=distillation(bckd=L(BCKD)()))
    plain = plain_config(cfg)
    plain["model"]["methods"]["bckd"]["_target_"] = "dense_kd.twin.BCKD"
    assert list(config_changes(plain, cfg)) == ["model.methods.bckd._target_"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_and_one_with_logs_alone_are_free(tmp_path, overwrite):
    cfg = config(tmp_path / "new", f"train.overwrite={overwrite}")
    assert run_folder.problems(cfg, resume=False) == []
    assert run_folder.remarks(cfg, resume=False) == ""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "log.txt").write_text("a run that failed at once")
    assert run_folder.problems(cfg, resume=False) == []
    (tmp_path / "new" / "metrics.json").write_text("{}")
    assert run_folder.problems(cfg, resume=False) == []
    assert "metrics of a run without a checkpoint" in run_folder.remarks(cfg, resume=False)


@pytest.mark.parametrize(
    "done, name, said",
    [
        (500, None, "an unfinished run (model_0000499.pth, 500 of 1000 iterations)"),
        (1000, "model_final", "a finished run (model_final.pth, 1000 of 1000 iterations)"),
    ],
)
def test_a_run_is_not_trained_over_unless_told(tmp_path, done, name, said):
    cfg = config(tmp_path)
    saved(cfg, done, name)
    (problem,) = run_folder.problems(cfg, resume=False)
    assert said in problem and "another config" not in problem
    assert "--resume" in problem and "train.overwrite=True" in problem
    (problem,) = run_folder.problems(config(tmp_path, "optimizer.lr=0.5"), resume=False)
    assert said in problem and "optimizer.lr: 0.002 -> 0.5" in problem
    assert run_folder.problems(config(tmp_path, "train.overwrite=true"), resume=False) == []


@pytest.mark.parametrize(
    "done, max_iter, said",
    [
        (500, "${train.eval_period}", "an unfinished run (model_0000499.pth, 500 of 1000 iter"),
        (1000, "${train.eval_period}", "a finished run (model_0000999.pth, 1000 of 1000 iter"),
        (500, "${oc.env:NO_SUCH_VARIABLE}", "a run (model_0000499.pth, 500 iterations)"),
    ],
)
def test_the_iterations_of_a_run_may_refer_to_another_entry(tmp_path, done, max_iter, said):
    cfg = config(tmp_path, "train.eval_period=1000")
    cfg.train.max_iter = max_iter
    saved(cfg, done)
    (problem,) = run_folder.problems(cfg, resume=False)
    assert said in problem and "another config" not in problem


@pytest.mark.parametrize("left", ["model_final.pth", "model_0000499.pth", "last_checkpoint"])
def test_what_is_left_of_a_run_is_not_trained_over_either(tmp_path, left):
    (tmp_path / left).write_bytes(b"model_0000499.pth")
    assert run_folder.problems(config(tmp_path), resume=False)
    (tmp_path / left).rename(tmp_path / "R-50.pth")  # weights that somebody put there
    assert run_folder.problems(config(tmp_path), resume=False) == []


def test_overwriting_removes_checkpoints_curves_and_maps_and_nothing_else(tmp_path):
    cfg = config(tmp_path, "train.overwrite=true")
    saved(cfg, 500)
    saved(cfg, 1000, "model_final")
    saved(cfg, 500, "model_best")
    kept = {"log.txt", "thesis.tex", "R-50.pth", "model_good.pth"}
    for name in [*kept, "metrics.json", "events.out.tfevents.1.host"]:
        (tmp_path / name).write_text("something")
    save_drawn(tmp_path, 499, "photo", "bckd", Image.new("RGB", (1, 1)))
    run_folder.clear(config(tmp_path))
    assert {"model_final.pth", "training_maps"} < names(tmp_path)
    run_folder.clear(cfg)
    assert names(tmp_path) == kept


@pytest.mark.parametrize("place", ["train.init_checkpoint", "model.teacher.weights"])
def test_a_file_that_the_run_needs_is_not_overwritten(tmp_path, place):
    cfg = config(tmp_path, "train.overwrite=true", model=distillation(bckd=L(BCKD)()))
    saved(cfg, 1000, "model_final")
    OmegaConf.update(cfg, place, os.path.relpath(tmp_path / "model_final.pth"))
    (problem,) = run_folder.problems(cfg, resume=False)
    assert place in problem and "model_final.pth" in problem
