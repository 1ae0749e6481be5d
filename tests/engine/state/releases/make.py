#!/usr/bin/env python
"""Train the runs of a release that later versions resume; the README beside this file says when."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[4]
RECORDING = ROOT / "projects" / "dense_kd" / "engine" / "comparison" / "recording.py"
NAMES = ("distillation", "baseline")
KEPT, REMAINING = "model_0000003.pth", 4
"""The checkpoint in the middle of a run, and the iterations after it."""

_RECORD = """
import json, runpy, sys
from detectron2.config import LazyConfig

record = runpy.run_path(sys.argv[1])["record"]
losses = record(LazyConfig.load(sys.argv[2]), int(sys.argv[3]), resume=True)
json.dump(losses, open("losses.json", "w"))
"""


def make_run(folder: Path, name: str, checkout: Path) -> None:
    """Write ``<folder>/<name>/``.

    Args:
        folder: of the release, with its configs, images and teacher.
        name: of the config.
        checkout: of the release, whose script and package run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "release"
        unpack(folder, place)
        shutil.rmtree(place / name, ignore_errors=True)
        environment = {
            **os.environ,
            # What TorchScript compiles rounds otherwise in the first calls of a process than later.
            "PYTORCH_JIT": "0",
            "PYTHONPATH": os.pathsep.join(
                [str(checkout / "projects"), os.environ.get("PYTHONPATH", "")]
            ),
        }

        def python(*arguments: str) -> None:
            subprocess.run([sys.executable, *arguments], cwd=place, env=environment, check=True)

        config = f"{name}.py"
        python(str(checkout / "tools" / "lazyconfig_train_net.py"), "--config-file", config)
        run = place / name
        whole = _weights(run)
        for file in run.iterdir():
            if file.name not in (KEPT, "config.yaml"):
                file.unlink()
        (run / "last_checkpoint").write_text(KEPT)
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(run, folder / name)
        _compress(folder / name / KEPT)

        python("-c", _RECORD, str(RECORDING), config, str(REMAINING))
        resumed = _weights(run)
        for key, value in whole.items():
            if not torch.equal(value, resumed[key]):
                sys.exit(f"{name}: resumed, the release itself ends with another {key}")
        expected = {
            "losses": json.loads((place / "losses.json").read_text()),
            "weights": {key: summary(value) for key, value in whole.items()},
        }
        (folder / name / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def summary(tensor: Tensor) -> list[float]:
    """[sum, norm], enough to tell a tensor from one that was trained otherwise."""
    values = tensor.double()
    return [float(f"{number:.9g}") for number in (values.sum().item(), values.norm().item())]


def unpack(folder: Path, place: Path) -> None:
    """Copy the folder of a release, its checkpoints as they were."""
    shutil.copytree(folder, place)
    for file in [*place.rglob("*.pth.gz")]:
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


def _compress(file: Path) -> None:
    # Without the time, so that the same content is the same file.
    file.with_suffix(".pth.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    file.unlink()


def _weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "model_final.pth", weights_only=True)["model"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the release, a copy of that of the last one")
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, help="of the release; default: %(default)s"
    )
    args = parser.parse_args()
    for name in NAMES:
        make_run(args.folder.resolve(), name, args.checkout.resolve())


if __name__ == "__main__":
    main()
