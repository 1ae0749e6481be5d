#!/usr/bin/env python
"""Whether weights by gradient share find their share, and what that does to AP: all methods.

FCOS on generated images, one seed: each method with the weights of its quickstart config, measured
and left alone, and with ``balance``. LD has a student and a teacher of its own, that predict
distributions. Warm-ups of methods are as long a part of the run as in the quickstart. Results are
written after every cell; one that is there is not trained again, one that was stopped is begun
again.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig

from dense_kd import get_config
from dense_kd.benchmark.machine import circumstances, load_average
from dense_kd.checkpoint import FINAL_CHECKPOINT
from dense_kd.data.shapes import generate_shapes, register_shapes
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.run import train
from dense_kd.json_files import read_json, without_nan, write_json
from dense_kd.methods import balance
from dense_kd.pipeline.methods import methods_by_name

RESULTS = Path(__file__).parent / "results" / "balance.json"
SPLITS = {"train": 1000, "val": 200}
"""{split: images}."""
STUDENT, TEACHER = "quickstart/student.py", "quickstart/teacher.py"
REG_MAX = 8
"""Of the student and the teacher of LD."""
QUICKSTART_ITERATIONS = 1000
VARIANTS = ("hand", "balance")
ALONE = "student alone"


class Recording(HookBase):
    """Takes over what ``balance`` has written of the method."""

    def __init__(self, method: str):
        self.method = method
        self.found: dict[str, dict[str, float]] = {}

    def after_train(self) -> None:
        """Of the trainer's storage, {iteration: number}."""
        histories = self.trainer.storage.histories()
        for what, beginning in balance.SCALARS.items():
            name = beginning + self.method
            values = histories[name].values() if name in histories else []
            self.found[what] = {str(int(i)): float(f"{value:.5g}") for value, i in values}


def config_of(args: argparse.Namespace, method: str | None, variant: str) -> DictConfig:
    """The config of a cell.

    Args:
        args: of the command line.
        method: its name, None for the student alone or the teacher.
        variant: one of :data:`VARIANTS`, "" for the student alone, "teacher" or "teacher of ld".
    """
    distribution = method == "ld" or variant == "teacher of ld"
    if method is None:
        cfg = get_config(STUDENT if variant == "" else TEACHER)
        heads = [cfg.model.head]
    else:
        cfg = get_config("quickstart/distill.py")
        given = get_config(f"quickstart/{'distill' if method == 'bckd' else method}.py")
        cfg.model.methods = given.model.methods
        cfg.model.init_student = given.model.get("init_student", False)
        options = cfg.model.methods[method]
        kind = methods_by_name()[method]
        warmup = options.get("warmup_iters", kind().warmup_iters)
        options.warmup_iters = round(warmup * args.iterations / QUICKSTART_ITERATIONS)
        cfg.model.methods.balance = {"target": args.target}
        teacher = folder_of(args, None, "teacher of ld" if distribution else "teacher")
        cfg.model.teacher.weights = str(teacher / FINAL_CHECKPOINT)
        heads = [cfg.model.student.head, cfg.model.teacher.model.head]
    for head in heads if distribution else ():
        head.reg_max = REG_MAX
    cfg.dataloader.train.dataset.names = "balance_train"
    cfg.dataloader.test.dataset.names = "balance_val"
    cfg.dataloader.train.total_batch_size = args.batch_size
    teaching = variant.startswith("teacher")
    cfg.train.max_iter = args.teacher_iterations if teaching else args.iterations
    cfg.train.checkpointer = dict(period=cfg.train.max_iter, max_to_keep=1)
    cfg.train.overwrite = True
    cfg.train.output_dir = str(folder_of(args, method, variant))
    return apply_overrides(cfg, args.override)


def folder_of(args: argparse.Namespace, method: str | None, variant: str) -> Path:
    """Of the run of a cell."""
    name = " ".join(filter(None, (method, variant))) or ALONE
    return (args.output / name.replace(" ", "_")).absolute()


def trained(args: argparse.Namespace, method: str | None, variant: str) -> dict[str, Any]:
    """What a cell has found: AP, and of a method its shares and factors."""
    cfg = config_of(args, method, variant)
    seed_all_rng(cfg.train.seed)
    recording, start = Recording(method or ""), time.monotonic()
    left_alone = mock.patch.object(balance, "adapted", lambda factor, *_: factor)
    with left_alone if variant == "hand" else contextlib.nullcontext():
        metrics = train(argparse.Namespace(resume=False), cfg, more_hooks=[recording])["bbox"]
    found = {
        "AP": metrics["AP"],
        "AP50": metrics["AP50"],
        "iterations": cfg.train.max_iter,
        "seconds": round(time.monotonic() - start, 1),
    }
    return {**found, **recording.found} if method else found


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    methods = sorted(methods_by_name())
    option("methods", nargs="*", metavar="METHOD", help=f"default: all, {', '.join(methods)}")
    option("--iterations", type=int, default=120, help="of a student (%(default)s)")
    option("--teacher-iterations", type=int, default=400, help="(%(default)s)")
    option("--batch-size", type=int, default=8, help="images (%(default)s)")
    option("--side", type=int, default=64, help="of the images, in pixels (%(default)s)")
    option("--target", type=float, default=0.9, help="share of a method (%(default)s)")
    option("--threads", type=int, default=1, help="of torch (%(default)s)")
    option("--output", type=Path, default=Path("output/balance"), help="default: %(default)s")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--override", action="append", default=[], metavar="path.key=value", help="of all")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    unknown = sorted({*args.methods} - {*methods_by_name()})
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; there is {', '.join(methods_by_name())}")
    torch.set_num_threads(args.threads)
    for split, number in SPLITS.items():
        root = args.output / f"shapes_{args.side}"
        generate_shapes(root, split, number, image_size=(args.side, args.side), max_objects=4)
        register_shapes(f"balance_{split}", root, split)
    options = ("iterations", "teacher_iterations", "batch_size", "side", "target", "override")
    settings = {name: getattr(args, name) for name in options}
    content = read_json(args.results)
    if content and content["settings"] != settings:
        parser.error(
            f"{args.results} has cells of other settings, {content['settings']}; these are "
            f"{settings}: give another --results and --output"
        )
    content.setdefault("settings", settings)
    cells = content.setdefault("cells", {})

    def cell(title: str, method: str | None, variant: str) -> None:
        if title not in cells:
            cells[title] = without_nan(trained(args, method, variant))
            about = circumstances(torch.device("cpu"))
            cells[title].update(commit=about["commit"], load_average=load_average())
            content.update({**about, "threads": args.threads})
            write_json(args.results, content)
            series = {k: v for k, v in cells[title].items() if isinstance(v, dict)}
            last = {k: [*v.values()][-1] for k, v in series.items() if v}
            print(f"{title}: AP {cells[title]['AP']}, {last}", flush=True)

    # Those with a teacher of their own come last, as does what is compared with.
    methods = args.methods or sorted(methods_by_name(), key=lambda name: name == "ld")
    for variant in reversed(VARIANTS):
        for method in methods:
            teacher = "teacher of ld" if method == "ld" else "teacher"
            if f"{method}, {variant}" not in cells:
                if not (folder_of(args, None, teacher) / FINAL_CHECKPOINT).exists():
                    cells.pop(teacher, None)
                cell(teacher, None, teacher)
            cell(f"{method}, {variant}", method, variant)
    cell(ALONE, None, "")


if __name__ == "__main__":
    main()
