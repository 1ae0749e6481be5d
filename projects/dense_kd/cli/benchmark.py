"""``dense-kd benchmark``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import is_override
from .progress import image_counter

if TYPE_CHECKING:
    from ..benchmark.measuring import Wanted

HELP = "measure what distillations cost, part by part and side by side"
EXAMPLES = [
    "dense-kd benchmark quickstart/distill --size 320 320 --rounds 3",
    "dense-kd benchmark bckd/gfl_r101_r50_1x crosskd/gfl_r101_r50_1x --size 480 640 --threads 2",
    "dense-kd benchmark quickstart/distill quickstart/distill model.teacher.precision=bfloat16",
    "dense-kd benchmark train.amp.enabled=True bckd/gfl_r101_r50_1x --batch 8 --device cuda",
    "dense-kd benchmark quickstart/distill --data --json cost.json --profile step.json",
]

# What the profiler of torch, which memory is read from, says of itself on stderr.
_QUIET = {"KINETO_LOG_LEVEL": "6", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Configs, what is drawn, and what is measured."""
    option = parser.add_argument
    option(
        "words",
        nargs="*",
        metavar="CONFIG path.key=value",
        help="distillations, as `dense-kd list configs` has them, and overrides: those before the "
        "first config are for all, others for the config that they follow",
    )
    option("--size", nargs=2, type=int, metavar=("H", "W"), help="of the images, 800 x 1344")
    option("--batch", type=int, default=1, metavar="N", help="images at a time (%(default)s)")
    option("--boxes", type=int, metavar="N", help="objects of an image, 7 as in COCO")
    option("--classes", type=int, metavar="N", help="of both detectors; those of the config")
    option("--data", action="store_true", help="load the config's training data, draw nothing")
    option("--device", help="cpu, cuda, cuda:1, ...; by default the GPU if there is one")
    option("--threads", type=int, metavar="N", help="of torch; as many as it takes by itself")
    option("--rounds", type=int, default=10, metavar="N", help="that count (%(default)s)")
    option("--warmup", type=int, default=2, metavar="N", help="rounds before them (%(default)s)")
    option(
        "--what",
        default="times,memory,flops,kernels",
        metavar="NAMES",
        help="with commas between them (%(default)s)",
    )
    option("--json", metavar="FILE", help="write all numbers, with commit, versions and machine")
    option("--profile", metavar="FILE", help="of one step each: .json, a trace, or .txt, a table")
    parser.epilog = (
        "Times are those of the wall clock in rounds in which everything runs once. No file of\n"
        "weights is read: they are random, which costs the same. Kernels and stops (the host\n"
        "waits for the GPU) are counted on a pretended GPU, of two images of 128 x 128 pixels.\n"
        "docs/performance.md says what is measured and what is not.\n\n"
        f"{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Print tables, and write the files that are asked for."""
    if "torch" not in sys.modules:  # which reads them
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    from ..benchmark.measuring import Settings, benchmark
    from ..benchmark.profiling import check_profile_name
    from ..benchmark.text import as_text
    from ..checkpoint.places import check_file
    from ..json_files import check_json, write_json

    check_json(args.json, "load_after")
    if args.profile:
        check_profile_name(args.profile)
        check_file(args.profile)
    results = benchmark(
        wanted_of(args.words),
        Settings(
            what=tuple(name.strip() for name in args.what.split(",")),
            device=args.device,
            threads=args.threads,
            batch=args.batch,
            size=tuple(args.size) if args.size else None,
            boxes=args.boxes,
            classes=args.classes,
            data=args.data,
            rounds=args.rounds,
            warmup=args.warmup,
            profile=args.profile,
        ),
        image_counter(),
    )
    print(as_text(results))
    if args.json:
        write_json(Path(args.json), results)


def wanted_of(words: list[str]) -> list[Wanted]:
    """The configs of a command line, each with its overrides.

    Args:
        words: configs and overrides; overrides before the first config are for all.
    """
    from ..benchmark.measuring import Wanted

    of_all: list[str] = []
    configs: list[tuple[str, list[str]]] = []
    for word in words:
        if not is_override(word):
            configs.append((word, []))
        else:
            (configs[-1][1] if configs else of_all).append(word)
    return [Wanted(config, tuple(own), tuple(of_all)) for config, own in configs]
