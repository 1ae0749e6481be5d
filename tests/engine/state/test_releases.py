"""Runs that a release began are gone on with by this version; see releases/README.md."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.registry import locate
from engine.state.releases.make import KEPT, NAMES, REMAINING, summary, unpack

from dense_kd import Predictor
from dense_kd.checkpoint import CheckpointError
from dense_kd.engine.comparison.recording import record
from dense_kd.engine.state import run_folder

RELEASES = Path(__file__).parent / "releases"
RUNS = [(release.name, name) for release in sorted(RELEASES.glob("[0-9]*")) for name in NAMES]

# Ten times what differed between torch 2.1 and 2.14, detectron2 0.5 and main, and kinds of CPUs
# (the worst is a loss of BCKD, between vector instructions and none).
OF_LOSSES, OF_WEIGHTS = 3e-4, 1e-5


@pytest.fixture(params=RUNS, ids="-".join)
def run(request, tmp_path, monkeypatch) -> Path:
    """The folder of a run in a copy of its release, which is the working directory."""
    version, name = request.param
    unpack(RELEASES / version, tmp_path / version)
    monkeypatch.chdir(tmp_path / version)
    yield tmp_path / version / name
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("release_train", None)


@pytest.mark.parametrize("written", ["by the user", "by the run"])
def test_no_class_and_no_option_counts_as_changed(run, written):
    """Though classes may have moved to other modules since."""
    cfg = LazyConfig.load(f"{run.name}.py")  # has its dataset
    if written == "by the run":
        cfg = LazyConfig.load(str(run / "config.yaml"))
    assert run_folder.problems(cfg, resume=True) == []
    assert run_folder.remarks(cfg, resume=True) == ""


def test_the_names_in_the_config_of_a_run_are_found(run):
    names = re.findall(r"dense_kd(?:\.\w+)+", (run / "config.yaml").read_text())
    assert names and all(callable(locate(name)) for name in names)


def test_its_checkpoint_detects_with_its_config(run):
    weights = str(run / KEPT)
    with pytest.raises(CheckpointError, match="does not describe its detector.*--config"):
        Predictor(weights)
    prediction = Predictor(weights, f"{run.name}.py", device="cpu")("images/train/000000.png")
    assert prediction.instances.image_size == prediction.image.shape[:2]


def test_a_run_goes_on_as_it_did_with_the_release(run, caplog):
    expected = json.loads((run / "expected.json").read_text())
    cfg = LazyConfig.load(f"{run.name}.py")
    with caplog.at_level(logging.WARNING):
        losses = record(cfg, REMAINING + 1, resume=True)
    assert not [r for r in caplog.records if r.name.startswith(("dense_kd", "fvcore"))]
    assert len(losses) == len(expected["losses"]) == REMAINING
    for now, then in zip(losses, expected["losses"]):
        assert now == pytest.approx(then, rel=OF_LOSSES)

    before, after = (
        torch.load(run / name, weights_only=True) for name in (KEPT, "model_final.pth")
    )
    assert after["iteration"] == before["iteration"] + REMAINING
    assert after["config"] == before["config"]
    assert after["model"].keys() == before["model"].keys() == expected["weights"].keys()
    for key, value in after["model"].items():
        then = expected["weights"][key]
        assert summary(value) == pytest.approx(then, rel=0, abs=OF_WEIGHTS * then[1]), key
    trained, resumed = before["trainer"], after["trainer"]
    assert resumed.keys() >= trained.keys()
    images = cfg.dataloader.train.total_batch_size * cfg.train.accumulate * REMAINING
    place = {**trained["data_loader"], "num_images": trained["data_loader"]["num_images"] + images}
    assert place.items() <= resumed["data_loader"].items()
