"""``benchmarks/bccd.py`` on six images."""

from __future__ import annotations

import json
import subprocess

import pytest
from PIL import Image

from dense_kd.config import find_config
from dense_kd.data import install_bccd
from dense_kd.engine.processes import TrainingError
from helpers.script_runs import run
from helpers.scripts import load_benchmark
from helpers.small_bccd import write


def test_its_configs_exist_and_teachers_are_trained_first():
    configs = load_benchmark("bccd").CONFIGS
    assert len(configs) == 10 and all(find_config(config) for config in configs)
    for config in (config for config in configs if "bckd" in config):
        _, detector, teacher, _ = config.split("_")
        assert configs.index(f"bccd/{detector}_{teacher}.py") < configs.index(config)


@pytest.mark.slow
def test_a_config_is_trained_once_and_its_metrics_and_picture_are_written(
    files, target, tmp_path, monkeypatch
):
    install_bccd(write(files, tmp_path / "copy"))
    script, config, trainings = load_benchmark("bccd"), "bccd/gfl_r18.py", []

    class InThisProcess:
        """In place of a ``Popen`` of a training."""

        returncode = 0

        def __init__(self, command, **_):
            assert command[2:6] == ["-m", "dense_kd", "train", config]
            overrides = [word for word in command[6:] if "=" in word]
            trainings.append(overrides[0])
            run(config, overrides)

        def poll(self):
            return self.returncode

    monkeypatch.setattr(subprocess, "Popen", InThisProcess)
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"another": {}}))
    overrides = ["train.max_iter=2", f"train.output_dir={tmp_path}/run"]
    arguments = [word for override in overrides for word in ("--override", override)]
    for _ in range(2):
        script.main([config, "--results", str(results), *arguments])
    assert trainings == ["train.max_iter=2"]
    found = json.loads(results.read_text())
    assert set(found) == {"another", config}
    assert {"val", "test", "iterations", "parameters", "torch"} <= set(found[config])
    assert [*found[config]["AP on val after"]] in (["2"], [])  # nothing, where nothing is found
    picture = tmp_path / "pictures" / "row.jpg"
    monkeypatch.setattr(script, "PICTURED", {"one": config, "other": config})
    script.main(["--picture", str(picture), *arguments])
    width, height = Image.open(picture).size
    assert width == 3 * 480 and 300 < height < 480
    arguments[1] = "train.max_iter=1"
    with pytest.raises(TrainingError, match="other settings(.|\n)*train.max_iter: 2 -> 1"):
        script.main([config, "--results", str(results), *arguments])
    assert (tmp_path / "run" / "model_final.pth").is_file()
    arguments[3] = f"train.output_dir={tmp_path}/shorter"
    script.main([config, "--results", str(results), *arguments])
    assert trainings == ["train.max_iter=2", "train.max_iter=1"]
    assert json.loads(results.read_text())[config]["iterations"] == 1
