#!/usr/bin/env python
"""What half precision does to AP: the demo's student and BCKD, several seeds each, on shapes.

The teacher is trained once, in float32. A run that is finished is used again, one that was stopped
goes on. Results are written after every run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trained import trained

from dense_kd import compat
from dense_kd.checkpoint import FINAL_CHECKPOINT
from dense_kd.data.shapes import DEFAULT_SIZES, default_shapes_root, generate_shapes
from dense_kd.engine.processes import Run
from dense_kd.json_files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "precision.json"
TEACHER = "quickstart/teacher.py"
AMP = ["train.amp.enabled=True", "train.amp.dtype=bfloat16"]
VARIANTS = {
    "student": ("quickstart/student.py", []),
    "student in bfloat16": ("quickstart/student.py", AMP),
    "BCKD": ("quickstart/distill.py", []),
    "BCKD, teacher in bfloat16": (
        "quickstart/distill.py",
        ["model.teacher.precision=bfloat16"],
    ),
    "BCKD, both in bfloat16": ("quickstart/distill.py", AMP),
}
"""{title: (config, overrides)}."""


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--seeds", type=int, default=3, help="1 to this (%(default)s)")
    option("--threads", type=int, default=1, help="of a training (%(default)s)")
    option("--output", type=Path, default=Path("output/precision"), help="default: %(default)s")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--override", action="append", default=[], metavar="path.key=value", help="of all")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = get_parser().parse_args(argv)
    for split in ("train", "val"):
        generate_shapes(default_shapes_root(), split, DEFAULT_SIZES[split])
    teacher = run(args, "teacher", TEACHER, [])
    keep(args, "teacher", 1, teacher)
    weights = f"model.teacher.weights={(teacher.folder / FINAL_CHECKPOINT).absolute()}"
    for seed in range(1, args.seeds + 1):
        for title, (config, overrides) in VARIANTS.items():
            taught = [weights] if config == "quickstart/distill.py" else []
            done = run(args, title, config, [*overrides, *taught, f"train.seed={seed}"], seed)
            keep(args, title, seed, done)


def run(
    args: argparse.Namespace, title: str, config: str, overrides: list[str], seed: int = 1
) -> Run:
    """A training that is finished."""
    folder = args.output / f"seed{seed}" / title.replace(",", "").replace(" ", "_")
    overrides = [*overrides, *args.override]
    return trained(f"{title}, seed {seed}", folder, config, overrides, args.threads)


def keep(args: argparse.Namespace, title: str, seed: int, done: Run) -> None:
    """Write what a run has reached beside the others."""
    content: dict[str, Any] = read_json(args.results)
    content.setdefault("versions", {}).update(compat.versions())
    content["threads"] = args.threads
    ap = content.setdefault("AP", {}).setdefault(title, {})
    ap[str(seed)] = done.metrics["bbox/AP"]
    content.setdefault("seconds", {}).setdefault(title, {})[str(seed)] = round(done.seconds, 1)
    write_json(args.results, content)
    print(f"{title}, seed {seed}: AP {ap[str(seed)]:.1f}", flush=True)


if __name__ == "__main__":
    main()
