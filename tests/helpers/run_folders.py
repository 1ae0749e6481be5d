"""Folders as trainings leave them, written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

METRICS = {"AP": 20.0, "AP50": 30.0, "AP75": 15.0, "APs": 10.0, "APm": 25.0, "APl": float("nan")}


def records(
    iterations: int = 40,
    ap: float | None = 20.0,
    terms: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Lines of metrics, every 20 iterations, of half a second each."""
    lines: list[dict[str, Any]] = [
        {"iteration": i, "lr": 0.01, "total_loss": 2.0, "loss_cls": 40 / (i + 1), "time": 0.5,
         **(terms or {})}
        for i in range(19, iterations, 20)
    ]  # fmt: skip
    if ap is not None:
        metrics = {f"bbox/{name}": value for name, value in {**METRICS, "AP": ap}.items()}
        lines.append({"iteration": iterations, **metrics})
    return lines


def config_of(seed: int | None = 1, names: str = "some_val", **entries: Any) -> dict[str, Any]:
    """What of a config a report reads; ``entries`` replace parts of it."""
    return {
        "model": {"_target_": "dense_kd.FCOS", "num_classes": 2},
        "dataloader": {"test": {"dataset": {"names": names}}},
        "optimizer": {"lr": 0.01},
        "train": {"seed": seed, "max_iter": 40, "output_dir": f"out/{seed}"},
        **entries,
    }


def write_run(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    lines: Sequence[Mapping[str, Any]] | None = None,
    *,
    finished: bool = True,
    detections: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """A run; the weights of a finished one are an empty file."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.dump(config_of() if config is None else config))
    lines = records() if lines is None else lines
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (folder / "model_final.pth").write_bytes(b"")
    if detections is not None:
        (folder / "coco_instances_results.json").write_text(json.dumps(detections))
    return folder
