#!/usr/bin/env python
"""Train the detectors of configs/bccd, and write what they reach to results/bccd.json.

Teachers come before who learns from them. A run that is finished is used again if it was trained
by the same settings and teacher, and trained again if not; one that was stopped goes on. Images for
testing are looked at once, by the last weights. Results are written after every run, beside those
of other configs.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from omegaconf import DictConfig
from PIL import Image, ImageDraw
from trained import trained

from dense_kd import compat, get_config
from dense_kd.checkpoint import FINAL_CHECKPOINT, load_strictly
from dense_kd.data import bccd
from dense_kd.engine import evaluate
from dense_kd.engine.building import count_parameters
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.fingerprint import cores
from dense_kd.engine.processes import read_metrics
from dense_kd.json_files import read_json, write_json
from dense_kd.pipeline.results import metrics_of
from dense_kd.visualize.drawing import choose_images, compare, font

RESULTS = Path(__file__).parent / "results" / "bccd.json"
CONFIGS = [
    f"bccd/{name.format(detector)}.py"
    for detector in ("gfl", "fcos")
    for name in ("{}_lite2", "{}_r18", "{}_lite0", "bckd_{}_lite2_r18", "bckd_{}_lite2_lite0")
]
PICTURED = {
    "teacher": "bccd/gfl_lite2.py",
    "student alone": "bccd/gfl_r18.py",
    "student with BCKD": "bccd/bckd_gfl_lite2_r18.py",
}
"""{title: config} of ``--picture``."""
_SCORE = 0.5
_EDGE = 480  # of a picture, in pixels
_LINE = 34  # height of what stands below it


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("configs", nargs="*", help=f"default: {' '.join(CONFIGS)}")
    option("--override", action="append", default=[], metavar="path.key=value", help="of all")
    option("--threads", type=int, default=cores(), help="of a training (%(default)s)")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--picture", type=Path, help="draw this file from finished runs, and train nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = get_parser().parse_args(argv)
    if args.picture:
        draw(args.picture, args.override)
        return
    for config in args.configs or CONFIGS:
        result = run(config, args.override, args.threads)
        write_json(args.results, {**read_json(args.results), config: result})
        val, test = (result[part]["AP"] for part in ("val", "test"))
        if val is None or test is None:
            print(f"{config}: detects nothing", flush=True)
        else:
            print(f"{config}: AP {val:.1f} on val, {test:.1f} on test", flush=True)


def run(config: str, overrides: list[str], threads: int) -> dict[str, Any]:
    """Train, if that is left to do, and evaluate; what results/bccd.json has of a config."""
    cfg = bare(config, overrides)
    folder = Path(cfg.train.output_dir)
    trained(config, folder, config, overrides, threads)
    weights = folder / FINAL_CHECKPOINT
    records = read_metrics(folder)
    return {
        "date": datetime.date.fromtimestamp(weights.stat().st_mtime).isoformat(),
        "iterations": cfg.train.max_iter,
        "parameters": count_parameters(cfg.model),
        "val": evaluated(cfg, weights, "val"),
        "test": evaluated(cfg, weights, "test"),
        "AP on val after": {
            min(record["iteration"] + 1, cfg.train.max_iter): record["bbox/AP"]
            for record in records
            if record.get("bbox/AP") is not None
        },
        **compat.versions(),
    }


def bare(config: str, overrides: list[str]) -> DictConfig:
    """The config; of a distillation, with the student alone for its model."""
    cfg = apply_overrides(get_config(config), overrides)
    cfg.model = cfg.model.get("student", cfg.model)
    return cfg


def evaluated(cfg: DictConfig, weights: Path, part: str) -> dict[str, Any]:
    """{"AP": ..., ...} of a part of the images, in percent."""
    cfg.train.init_checkpoint = str(weights)
    cfg.dataloader.test.dataset.names = f"bccd_{part}"
    return metrics_of(evaluate(cfg)["bbox"])


def draw(file: Path, overrides: list[str]) -> None:
    """Detections of finished runs in one validation image, beside the truth."""
    models = {}
    for title, config in PICTURED.items():
        cfg = bare(config, overrides)
        models[title] = instantiate(cfg.model).to(cfg.train.device)
        load_strictly(models[title], f"{cfg.train.output_dir}/{FINAL_CHECKPOINT}")
    augmentations = instantiate(cfg.dataloader.test.mapper.augmentations)
    images = choose_images(DatasetCatalog.get("bccd_val"), 3)[1:2]
    (row,) = compare(
        images,
        models,
        bccd.CLASSES,
        score_threshold=_SCORE,
        augmentations=augmentations,
        longest_edge=_EDGE,
    )
    width, height = row.panels[0].picture.size
    sheet = Image.new("RGB", (width * len(row.panels), height + _LINE), "white")
    pen = ImageDraw.Draw(sheet)
    for index, panel in enumerate(row.panels):
        sheet.paste(panel.picture, (index * width, 0))
        text = f"{panel.title}: {panel.caption}"
        pen.text((index * width + 6, height + 8), text, fill="black", font=font())
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, quality=88)


if __name__ == "__main__":
    main()
