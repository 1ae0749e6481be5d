#!/usr/bin/env python
"""Whether a long training keeps what it does not need: memory, descriptors, threads, processes.

A small distillation (BCKD and FGD, FCOS) on generated images, with everything that a run does now
and then: evaluations, checkpoints, diagnostics and maps. Every --period iterations one sample is
measured and the file of results is written. A run that was stopped goes on, as another process of
the same file. What grew is the slope of the samples' later two thirds, without the first six, in
units per 1,000 iterations; where Python's own memory grew is told line by line.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import statistics
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from omegaconf import DictConfig

from dense_kd import get_config
from dense_kd.benchmark.machine import circumstances, load_average
from dense_kd.data.shapes import generate_shapes, register_shapes
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.command import set_up
from dense_kd.engine.run import train
from dense_kd.json_files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
CONFIG = "quickstart/distill.py"
SPLITS = {"train": 200, "val": 20}
"""{split: images}."""
TRACED = ("rss", "malloc", "python", "objects", "workers_rss", "descriptors", "threads")
"""What a slope is computed of; the first three and the fifth in bytes."""
LINES = 15  # of Python's growth
ONCE = 6
"""Samples by which all that is made once has been made: the first maps load matplotlib."""


class Enough(KeyboardInterrupt):
    """The time is up; no error, so that nothing logs it as one."""


class Sampling(HookBase):
    """Samples of this process every ``period`` iterations, and what differs from the first."""

    def __init__(self, period: int, seconds: float, keep: Any):
        """
        Args:
            period: in iterations.
            seconds: after which the training is ended.
            keep: called with this process's part of the results after each sample.
        """
        self._period = period
        self._keep = keep
        self._begin = time.monotonic()
        self._seconds = seconds
        self._first: dict[str, tuple[int, int]] = {}
        self._found: dict[str, Any] = {"samples": [], "python_growth": []}

    def after_step(self) -> None:
        """Measure, if it is one of those iterations."""
        done = self.trainer.iter + 1
        if done % self._period == 0:
            self._measure(done)
        if time.monotonic() - self._begin >= self._seconds:
            raise Enough

    def _measure(self, done: int) -> None:
        gc.collect()
        sample = {"iteration": done, "seconds": round(time.monotonic() - self._begin, 1)}
        self._found["samples"].append({**sample, **measured()})
        lines = traced_lines()
        if len(self._found["samples"]) <= ONCE:
            self._first = lines
        self._found["python_growth"] = growth(self._first, lines)
        self._keep(self._found)


def measured() -> dict[str, int | None]:
    """Of this process and of the workers that load its data."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    workers = multiprocessing.active_children()
    return {
        "rss": _kilobytes(status["VmRSS"]),
        "malloc": malloc_in_use(),
        "python": tracemalloc.get_traced_memory()[0],
        "objects": len(gc.get_objects()),
        "workers": len(workers),
        "workers_rss": sum(_rss_of(worker.pid) for worker in workers),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def malloc_in_use() -> int | None:
    """Bytes that glibc's malloc has given out and not got back; None of another C library.

    A resident size that grows while this does not is memory between blocks, not a leak.
    """

    class Mallinfo2(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        ]

    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def traced_lines() -> dict[str, tuple[int, int]]:
    """{file:line: (bytes, blocks)} of Python's memory, without what tracing itself takes."""
    own = tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__)
    taken = tracemalloc.take_snapshot().filter_traces(own)
    return {
        f"{_short(each.traceback[0].filename)}:{each.traceback[0].lineno}": (each.size, each.count)
        for each in taken.statistics("lineno")
    }


def growth(
    first: Mapping[str, tuple[int, int]], last: Mapping[str, tuple[int, int]]
) -> list[dict[str, Any]]:
    """The lines that grew most, as {"line", "bytes", "blocks"}."""
    grown = {line: size - first.get(line, (0, 0))[0] for line, (size, _) in last.items()}
    most = sorted(grown, key=grown.__getitem__, reverse=True)[:LINES]
    return [{"line": line, "bytes": grown[line], "blocks": last[line][1]} for line in most]


def slopes(samples: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Least squares of the later two thirds of the samples, per 1,000 iterations; None of few."""
    later = samples[max(ONCE, len(samples) // 3) :]
    found: dict[str, float | None] = {}
    for name in TRACED:
        points = [(s["iteration"] / 1000, s[name]) for s in later if s[name] is not None]
        found[name] = _slope(points) if len(points) > 2 else None
    return found


def described(results: Mapping[str, Any]) -> str:
    """A line of the last sample and the slopes of its process."""
    process = results["processes"][-1]
    last = process["samples"][-1]
    text = [f"{last['iteration']} iterations, {last['seconds']:.0f} s"]
    for name in TRACED:
        value, slope = last[name], process["per_1000_iterations"][name]
        mega = name in ("rss", "malloc", "python", "workers_rss")
        if value is not None:
            shown = f"{value / 1e6:.1f} MB" if mega else str(value)
            more = "" if slope is None else f" ({slope / (1e6 if mega else 1):+.3f} per 1,000)"
            text.append(f"{name} {shown}{more}")
    return ", ".join(text)


def config_of(args: argparse.Namespace) -> DictConfig:
    """The distillation, with images and a teacher of random weights in ``args.output``."""
    side = args.side
    for split, number in SPLITS.items():
        root = args.output / "shapes"
        generate_shapes(root, split, number, image_size=(side, side), max_objects=4)
        register_shapes(f"soak_{split}", root, split)
    cfg = get_config(CONFIG)
    cfg.model.methods.fgd = get_config("quickstart/fgd.py").model.methods.fgd
    teacher = args.output / "teacher.pth"
    if not teacher.exists():
        torch.manual_seed(0)
        torch.save(instantiate(cfg.model.teacher.model).state_dict(), teacher)
    cfg.model.teacher.weights = str(teacher.absolute())
    cfg.dataloader.train.dataset.names = "soak_train"
    cfg.dataloader.test.dataset.names = "soak_val"
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = args.workers
    cfg.train.max_iter = args.iterations
    cfg.train.output_dir = str((args.output / "run").absolute())
    cfg.train.eval_period = 2 * args.period
    cfg.train.checkpointer = dict(period=args.period, max_to_keep=2)
    cfg.train.diagnostics = dict(period=max(args.period // 5, 1), images=2)
    cfg.train.maps = dict(period=5 * args.period, images=1, figures=["bckd"])
    return apply_overrides(cfg, args.override)


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--minutes", type=float, default=100, help="after which it ends (%(default)s)")
    option("--iterations", type=int, default=1_000_000, help="at most (%(default)s)")
    option("--period", type=int, default=500, help="iterations of a sample (%(default)s)")
    option("--side", type=int, default=64, help="of the images, in pixels (%(default)s)")
    option("--workers", type=int, default=1, help="processes that load (%(default)s)")
    option("--output", type=Path, default=Path("output/soak"), help="default: %(default)s")
    option("--results", type=Path, help="default: soak.json in benchmarks/results/<date>_<n>cores")
    option("--override", action="append", default=[], metavar="path.key=value", help="of the run")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = get_parser().parse_args(argv)
    cfg = config_of(args)
    about = circumstances(torch.device("cpu"))
    folder = f"{about['date'][:10]}_{about['machine']['cores']}cores"
    file = args.results or RESULTS / folder / "soak.json"
    resume = (Path(cfg.train.output_dir) / "last_checkpoint").exists()
    earlier = read_json(file).get("processes", []) if resume else []

    def keep(found: dict[str, Any]) -> None:
        of_process = {**found, "per_1000_iterations": slopes(found["samples"])}
        content = {
            **about,
            "threads": torch.get_num_threads(),
            "load_average": load_average(),
            "config": CONFIG,
            "period": args.period,
            "side": args.side,
            "processes": [*earlier, of_process],
        }
        write_json(file, content)
        print(described(content), flush=True)

    words = argparse.Namespace(config_file=CONFIG, resume=resume, opts=args.override)
    words.eval_only = words.eval_teacher = False
    set_up(cfg, words)
    if not resume:
        cfg.train.overwrite = True
    tracemalloc.start()
    sampling = Sampling(args.period, 60 * args.minutes, keep)
    try:
        train(words, cfg, more_hooks=[sampling])
    except Enough:
        print(f"stopped after {args.minutes:g} minutes", flush=True)


def _slope(points: Sequence[tuple[float, float]]) -> float:
    x, y = (statistics.fmean(each) for each in zip(*points))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def _kilobytes(text: str) -> int:
    return 1024 * int(text.split()[0])


def _rss_of(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(_kilobytes(line.split(":")[1]) for line in lines if line.startswith("VmRSS"))


def _short(file: str) -> str:
    for mark in ("site-packages/", "projects/", "/lib/"):
        if mark in file:
            return file.rpartition(mark)[2]
    return file


if __name__ == "__main__":
    main()
