"""What the training script says to mistakes: one message, no traceback, and nothing written."""

from __future__ import annotations

import pytest

from dense_kd import get_config_file
from helpers.script_runs import run_in_fork


@pytest.mark.parametrize("processes", [1, 2])
def test_mistakes_stop_all_processes_with_one_message(data, tmp_path, processes):
    command = [
        *("--num-gpus", str(processes), "--dist-url", "auto"),
        *("--config-file", get_config_file("quickstart/student.py"), *data),
        *(f"train.output_dir={tmp_path / 'out'}", "train.max_iter=ten", "train.log_period=0"),
        "dataloader.test.dataset.names=tiny_vall",
    ]
    result = run_in_fork(command, tmp_path)
    assert result.returncode == 1
    for expected in ("train.max_iter='ten': expected", "train.log_period=0", "mean tiny_val"):
        assert result.stderr.count(expected) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_the_data_shows_stops_all_processes_with_one_message(data, tmp_path):
    command = [
        *("--num-gpus", "2", "--dist-url", "auto"),
        *("--config-file", get_config_file("quickstart/student.py"), "model.num_classes=3"),
        *(*data, f"train.output_dir={tmp_path / 'out'}"),
    ]
    result = run_in_fork(command, tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("give model.num_classes=5") == 1
    assert not (tmp_path / "out" / "metrics.json").exists()
