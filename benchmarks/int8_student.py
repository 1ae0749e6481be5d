#!/usr/bin/env python
"""What 8-bit integers cost a student on BCCD: alone, distilled, and after learning with them.

GFL with a narrow ResNet-18, several seeds. Each is trained alone and with BCKD, and both go on for
a short while as if in 8-bit integers, alone or with the teacher still there. All four are exported
in float32 and in 8-bit integers and evaluated in onnxruntime, on the images for validation and on
those for testing. A teacher is trained first by `python benchmarks/bccd.py bccd/gfl_lite2.py`. A
run that is finished is used again, one that was stopped goes on; results are written after each.

Needs `pip install 'dense_kd[export]'`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bccd import bare, evaluated
from trained import trained

from dense_kd.benchmark.machine import circumstances
from dense_kd.checkpoint import FINAL_CHECKPOINT
from dense_kd.engine import load_config
from dense_kd.export import export
from dense_kd.export.files import FORMATS
from dense_kd.export.int8 import INT8_FILE, Precision, compared
from dense_kd.json_files import read_json, write_json
from dense_kd.pipeline.results import metrics_of

RESULTS = Path(__file__).parent / "results" / "int8_student.json"
TEACHER = "bccd/gfl_lite2.py"
ALONE, DISTILLED = "bccd/gfl_r18.py", "bccd/bckd_gfl_lite2_r18.py"
VARIANTS = {
    "student": (ALONE, None),
    "BCKD": (DISTILLED, None),
    "student, learnt with integers": (ALONE, "student"),
    "BCKD, learnt with integers": (DISTILLED, "BCKD"),
}
"""{title: (config, the variant from whose weights it goes on)}."""
GOES_ON = ["train.quantization_aware=True", "optimizer.lr=1e-4"]
PRECISIONS = ("float32", "int8")


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--seeds", type=int, default=3, help="1 to this (%(default)s)")
    option("--iterations", type=int, default=500, help="of a training (%(default)s)")
    option("--more", type=int, default=150, help="iterations with integers (%(default)s)")
    option("--teacher", help="its weights; default: those of its config")
    option("--threads", type=int, default=2, help="of a training (%(default)s)")
    option("--output", type=Path, default=Path("output/int8"), help="default: %(default)s")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--override", action="append", default=[], metavar="path.key=value", help="of all")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = get_parser().parse_args(argv)
    weigh_teacher(args)
    for seed in range(1, args.seeds + 1):
        for title, (config, start) in VARIANTS.items():
            overrides = [f"train.seed={seed}", "train.eval_period=0", *args.override]
            if config == DISTILLED:
                overrides.append(f"model.teacher.cache={(args.output / 'cache').absolute()}")
                if args.teacher:
                    overrides.append(f"model.teacher.weights={Path(args.teacher).absolute()}")
            iterations = args.iterations if start is None else args.more
            overrides.append(f"train.max_iter={iterations}")
            if start is not None:
                weights = folder_of(args, seed, start) / FINAL_CHECKPOINT
                overrides += [*GOES_ON, f"train.init_checkpoint={weights.absolute()}"]
            folder = folder_of(args, seed, title)
            run = trained(f"{title}, seed {seed}", folder, config, overrides, args.threads)
            keep(args, title, seed, exported(folder), run.seconds)


def weigh_teacher(args: argparse.Namespace) -> None:
    """Write what the teacher detects, unless that is known."""
    results = read_json(args.results)
    if "teacher" not in results:
        cfg = bare(TEACHER, args.override)
        weights = Path(args.teacher or f"{cfg.train.output_dir}/{FINAL_CHECKPOINT}")
        results["teacher"] = {part: evaluated(cfg, weights, part) for part in ("val", "test")}
        write_json(args.results, results)


def folder_of(args: argparse.Namespace, seed: int, title: str) -> Path:
    """The run of a variant writes into it."""
    return Path(args.output) / f"seed{seed}" / title.replace(",", "").replace(" ", "_")


def exported(folder: Path) -> dict[str, dict[str, Any]]:
    """{precision: {"val", "test": metrics in percent, "seconds" of an image, "bytes"}} of a run."""
    target = folder / "onnx"
    export(str(folder), "onnx", target, int8=True, overwrite=True)
    config = read_json(target / "config.json")
    files = dict(zip(PRECISIONS, (target / config["file"], target / INT8_FILE)))
    results = {
        name: {
            "val": metrics_of(config["int8"][name]["metrics"]["bbox"]),
            "seconds": config["int8"][name]["seconds"],
            "bytes": file.stat().st_size,
        }
        for name, file in files.items()
    }
    cfg = load_config(str(folder / "config.yaml"))
    cfg.dataloader.test.dataset.names = "bccd_test"
    runs = {name: (FORMATS["onnx"].load(str(file)), str(file)) for name, file in files.items()}
    images = [torch.zeros(3, 240, 320)]  # to be timed, which the export has done
    found: dict[str, Precision] = compared(cfg, runs, images, config["multiple"])
    for name, each in found.items():
        results[name]["test"] = metrics_of(each.metrics["bbox"])
    return results


def keep(
    args: argparse.Namespace, title: str, seed: int, found: dict[str, Any], seconds: float
) -> None:
    """Write what a run has reached beside the others."""
    before = read_json(args.results)
    write_json(
        args.results,
        {
            **circumstances(torch.device("cpu")),
            "threads": args.threads,
            "iterations": args.iterations,
            "more": args.more,
            "teacher": before["teacher"],
            "runs": {
                **before.get("runs", {}),
                title: {
                    **before.get("runs", {}).get(title, {}),
                    str(seed): {**found, "training_seconds": round(seconds, 1)},
                },
            },
        },
    )
    parts = "; ".join(
        f"{name}: {each['val']['AP']:.1f} on val, {each['test']['AP']:.1f} on test"
        for name, each in found.items()
    )
    print(f"{title}, seed {seed}: {parts}", flush=True)


if __name__ == "__main__":
    main()
