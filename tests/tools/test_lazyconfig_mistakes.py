"""What the training script says to mistakes: one message, no traceback, and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dense_kd import get_config_file
from dense_kd.data import generate_shapes
from helpers.script_runs import SCRIPT


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("datasets")
    for split in ("train", "val"):
        generate_shapes(root / "shapes", split, 4, image_size=(64, 64))
    return str(root)


@pytest.mark.parametrize("processes", [1, 2])
def test_mistakes_stop_all_processes_with_one_message(datasets, tmp_path, processes):
    command = [
        *(sys.executable, str(SCRIPT), "--num-gpus", str(processes), "--dist-url", "auto"),
        *("--config-file", get_config_file("quickstart/student.py")),
        *(f"train.output_dir={tmp_path / 'out'}", "train.max_iter=ten", "train.log_period=0"),
        "dataloader.test.dataset.names=shapes_vall",
    ]
    environment = {**os.environ, "DETECTRON2_DATASETS": datasets, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    for expected in ("train.max_iter='ten': expected", "train.log_period=0", "mean shapes_val"):
        assert result.stderr.count(expected) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_the_data_shows_stops_all_processes_with_one_message(datasets, tmp_path):
    command = [
        *(sys.executable, str(SCRIPT), "--num-gpus", "2", "--dist-url", "auto"),
        *("--config-file", get_config_file("quickstart/student.py"), "model.num_classes=3"),
        f"train.output_dir={tmp_path / 'out'}",
    ]
    environment = {**os.environ, "DETECTRON2_DATASETS": datasets, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.count("give model.num_classes=5") == 1
    assert not (tmp_path / "out" / "metrics.json").exists()
