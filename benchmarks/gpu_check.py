#!/usr/bin/env python
"""Run every detector and method on a GPU, compare it with the CPU, and measure what it costs.

Three files come out. losses.json: of each detector, and each method between two small ones, a step
in float32 against the losses of the CPU, one in bfloat16 and one in float16 with scaled gradients;
and one process of DistributedDataParallel. cost_batch8.json and cost_batch16.json: what
`dense-kd benchmark` finds with float16. It ends with 1 if a check fails; without a GPU it says so,
and ends with 0.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dense_kd import get_config, noise
from dense_kd.benchmark.batches import COCO_SIZE, synthetic_batch
from dense_kd.benchmark.machine import circumstances
from dense_kd.benchmark.measuring import Settings, Wanted, benchmark
from dense_kd.benchmark.models import Models
from dense_kd.benchmark.text import as_text
from dense_kd.config import config_folder
from dense_kd.engine.trainer import Trainer
from dense_kd.json_files import without_nan, write_json
from dense_kd.pipeline.methods import methods_by_name
from dense_kd.pipeline.named_detectors import detector_names, named_detector

OUTPUT = Path("output/gpu_check")
TOLERANCE = 1e-3
"""Relative to each loss of the CPU."""
_SMALLEST = 1e-2  # losses that are less are compared as if they were that

METHODS = ("bckd", "crosskd", "fgd", "fitnet", "ld", "pgd", "pkd", "tid")
COST_CONFIGS = [f"{method}/gfl_r101_r50_1x" for method in METHODS]
COST_ROUNDS = 5
MINUTES = 8.0
_SHARE_OF_LAST = 0.5  # of the minutes: later than that, no further costs are measured

_SMALL = "_small"
_BCKD = "quickstart/distill.py"
_SIDE = 128
_IMAGES = 2
_CLASSES = 5

Batch = list[dict[str, Any]]


def get_parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--device", default="cuda", help="cpu tries the program itself (%(default)s)")
    option("--output", type=Path, default=OUTPUT, help="folder of the files (%(default)s)")
    option("--checks", nargs="*", metavar="NAME", help="some of the detectors, methods, processes")
    option("--costs", nargs="*", default=COST_CONFIGS, metavar="CONFIG", help="GFL, R101 to R50")
    option("--batches", nargs="*", type=int, default=[8, 16], help="images at a time")
    option("--size", nargs=2, type=int, default=COCO_SIZE, metavar=("H", "W"))
    option("--minutes", type=float, default=MINUTES, help="half of them are for what is last")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 if a check failed."""
    args = get_parser().parse_args(argv)
    start = time.monotonic()
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        print("gpu_check: torch sees no GPU here, so nothing was checked")
        return 0
    noise.silence()
    device = torch.device(args.device)
    known = known_checks()
    unknown = set(args.checks or ()) - set(known)
    if unknown:
        print(f"gpu_check: no check {', '.join(sorted(unknown))}; there is {', '.join(known)}")
        return 2
    found = {}
    for name in known if args.checks is None else args.checks:
        found[name] = check(name, device)
        print(f"{'ok' if found[name]['ok'] else 'FAILS'}: {name} {found[name]}", flush=True)
        content = {**circumstances(device), "tolerance": TOLERANCE, "checks": found}
        write_json(args.output / "losses.json", without_nan(content))
    amp = ["train.amp.enabled=True", f"train.amp.dtype={amp_dtypes(device)[-1]}"]
    for batch in args.batches:
        if not args.costs or time.monotonic() - start > 60 * args.minutes * _SHARE_OF_LAST:
            print(f"gpu_check: the cost of batches of {batch} was not measured", flush=True)
            continue
        wanted = [Wanted(config, common=tuple(amp)) for config in args.costs]
        settings = Settings(
            what=("times", "memory"),
            device=args.device,
            batch=batch,
            size=tuple(args.size),
            rounds=COST_ROUNDS,
        )
        try:
            results = benchmark(wanted, settings)
        except torch.cuda.OutOfMemoryError:
            print(f"gpu_check: batches of {batch} do not fit on {args.device}", flush=True)
            continue
        write_json(args.output / f"cost_batch{batch}.json", results)
        print(as_text(results), flush=True)
    failed = [name for name, result in found.items() if not result["ok"]]
    print(f"{len(found) - len(failed)} of {len(found)} checks hold; files in {args.output}")
    return 1 if failed else 0


def known_checks() -> list[str]:
    """Every detector, every method, and "processes"."""
    small = [name for name in detector_names() if name.endswith(_SMALL)]
    return [*(name.removesuffix(_SMALL) for name in small), *methods_by_name(), "processes"]


def config_of(name: str) -> DictConfig:
    """A small detector, or the distillation of ``quickstart/`` with a method."""
    if name in methods_by_name():
        own = f"quickstart/{name}.py"
        return get_config(own if (config_folder() / own).is_file() else _BCKD)
    classes = [f"class {number}" for number in range(_CLASSES)]
    return named_detector(name + _SMALL, classes=classes, from_scratch=True)


def check(name: str, device: torch.device) -> dict[str, Any]:
    """{"ok": whether it holds, ...: what was found}; an error of any kind does not hold.

    Args:
        name: one of :func:`known_checks`.
        device: that is compared with the CPU.
    """
    try:
        if name == "processes":
            return check_processes(device)
        return check_steps(config_of(name), device)
    except Exception as error:  # of any kernel
        reason = (str(error).strip().splitlines() or [""])[0]
        return {"ok": False, "error": f"{type(error).__name__}: {reason}"}


def check_steps(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """One step in each precision, with the losses in float32 compared with the CPU's.

    What draws random numbers, as MGD does, has other losses on another device; it only has to be
    finite, and the differences are of the other losses.
    """
    model, batch = built(cfg)
    expected, again = (step(model, batch, torch.device("cpu"), seed=seed) for seed in (0, 1))
    random = {key for key in expected if expected[key] != again[key]}
    found = step(model, batch, device)
    off = {key: difference(found[key], expected[key]) for key in expected if key not in random}
    result: dict[str, Any] = {
        "ok": max(off.values(), default=0.0) <= TOLERANCE,
        "off": off,
        "random": sorted(random),
    }
    for dtype in amp_dtypes(device):
        low = step(model, batch, device, dtype=dtype)
        result[dtype] = max((difference(low[key], expected[key]) for key in off), default=None)
        result["ok"] &= all(map(math.isfinite, low.values()))
    return result


def check_processes(device: torch.device) -> dict[str, Any]:
    """A step of BCKD in one process that talks to itself: over NCCL, or gloo on the CPU."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    model, batch = built(get_config(_BCKD))
    alone = step(model, batch, device)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group(backend, init_method=meeting, world_size=1, rank=0)
        try:
            together = step(model, batch, device, parallel=True)
        finally:
            dist.destroy_process_group()
    off = {key: difference(together[key], alone[key]) for key in alone}
    return {"ok": max(off.values()) <= TOLERANCE, "off": off, "backend": backend}


def built(cfg: DictConfig) -> tuple[nn.Module, Batch]:
    """A model on the CPU, with random weights, and a batch for it."""
    models = Models(torch.device("cpu"))
    distils = "teacher" in cfg.model
    model = models.distiller(cfg) if distils else models.detector(cfg.model, "model")
    return model, synthetic_batch(_IMAGES, (_SIDE, _SIDE), 3, _CLASSES, 3)


def step(
    model: nn.Module,
    batch: Batch,
    device: torch.device,
    *,
    dtype: str | None = None,
    parallel: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """The losses of one step of the trainer, of a copy of ``model``.

    Args:
        model: on the CPU.
        batch: of images.
        device: that the step is made on.
        dtype: of autocast.
        parallel: whether the process exchanges gradients with itself.
        seed: of the random numbers of a method.

    Raises:
        FloatingPointError: losses or gradients are not finite.
    """
    torch.manual_seed(seed)
    twin = copy.deepcopy(model).to(device)
    optimizer = torch.optim.SGD(twin.parameters(), lr=1e-3, momentum=0.9)
    trained = DistributedDataParallel(twin) if parallel else twin
    trainer = Trainer(trained, itertools.repeat(batch), optimizer, amp_dtype=dtype)
    with EventStorage(0) as storage, exact_products():
        trainer.storage, trainer.iter = storage, 0
        trainer.run_step()
    found = {key: value for key, (value, _) in storage.latest().items() if "loss" in key}
    return {key: float(value) for key, value in found.items()}


class exact_products:
    """A context in which float32 is not cut short to TF32."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.before


def amp_dtypes(device: torch.device) -> list[str]:
    """That a device trains in, beside float32."""
    return ["bfloat16", "float16"] if device.type == "cuda" else ["bfloat16"]


def difference(found: float, expected: float) -> float:
    """Relative to the expected loss."""
    return abs(found - expected) / max(abs(expected), _SMALLEST)


if __name__ == "__main__":
    sys.exit(main())
