"""Files of a run beside its checkpoints, when they can be written and when not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from PIL import Image

from dense_kd.checkpoint import SaveError
from dense_kd.data.folders.problems import Problems
from dense_kd.engine.drawn_maps import save_drawn
from dense_kd.engine.run_files import MetricsWriter, save_config
from dense_kd.json_files import write_json
from dense_kd.teacher_cache.entry import Entry
from dense_kd.teacher_cache.stores import FolderStore
from helpers.full_disks import fails, files_of_at_most
from helpers.toy import toy_batch, toy_trainer

CONFIG = OmegaConf.create({"train": {"max_iter": 90000, "output_dir": "somewhere"}})

ENTRY = Entry([], torch.zeros(8000, dtype=torch.uint8))


def content_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save_config(CONFIG, str(folder / "config.yaml")),
        lambda folder: save_drawn(folder, 1, "a.jpg", "bckd", Image.new("RGB", (64, 64))),
        lambda folder: write_json(folder / "metrics.json", {"AP": [1.0] * 100}),
        lambda folder: Problems("photos").write(folder / "problems.txt"),
        lambda folder: FolderStore(str(folder)).put("0" * 64, ENTRY),
    ],
    ids=["config", "drawn map", "json", "problems", "teacher's cache"],
)
def test_a_file_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path, write):
    # The cache does not wait for the disk.
    with pytest.raises(SaveError, match=f"{tmp_path}.* cannot be written: (No space|File too)"):
        with files_of_at_most(5000), fails("fsync"):
            write(tmp_path)
    assert content_of(tmp_path) == []
    write(tmp_path)
    assert len(content_of(tmp_path)) == 1


def test_a_config_is_written_as_detectron2_writes_it(tmp_path):
    save_config(CONFIG, str(tmp_path / "ours.yaml"))
    LazyConfig.save(CONFIG, str(tmp_path / "theirs.yaml"))
    assert (tmp_path / "ours.yaml").read_bytes() == (tmp_path / "theirs.yaml").read_bytes()


def train(folder: Path, start: int, end: int) -> None:
    trainer = toy_trainer([toy_batch()] * 4)
    trainer.register_hooks([MetricsWriter(str(folder), end, period=1)])
    trainer.train(start, end)


def test_metrics_that_do_not_fit_end_the_run_and_those_before_can_be_read(tmp_path):
    train(tmp_path, 0, 2)
    file = tmp_path / "metrics.json"
    first = file.read_text()
    with pytest.raises(SaveError, match=r"metrics\.json cannot be written"):
        with files_of_at_most(len(first) + 20):  # a line of which a part fits
            train(tmp_path, 2, 4)
    assert file.read_text() != first and not file.read_text().endswith("\n")
    train(tmp_path, 2, 4)
    lines = file.read_text().splitlines()
    assert "\n".join([*lines[:2], ""]) == first
    assert [json.loads(line)["iteration"] for line in lines[:2] + lines[3:]] == [0, 1, 2, 3]
