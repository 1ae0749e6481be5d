"""The training script, run in this process, and what it leaves."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import torch

from dense_kd import get_config_file
from dense_kd.engine.command import get_parser, parse_args

SCRIPT = Path(__file__).parents[2] / "tools" / "lazyconfig_train_net.py"


def load_script():
    spec = importlib.util.spec_from_file_location("lazyconfig_train_net", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(config: str, overrides: list[str], *flags: str) -> dict:
    """Run the script on a config of the project, or on a file of a test."""
    config = config if os.path.exists(config) else get_config_file(config)
    arguments = ["--config-file", config, *flags, *overrides]
    return load_script().main(parse_args(get_parser(), arguments))


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def assert_equal(a, b, place="") -> None:
    """Assert that two nested checkpoints are equal, bit for bit."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{place}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    else:
        assert a == b, place
