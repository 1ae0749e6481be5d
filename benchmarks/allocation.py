#!/usr/bin/env python
"""What it costs on a CPU that the C library gives back what tensors have left, and what is gained
by `dense_kd.allocation.keep_freed_memory`: time of the processor, pages that the system clears, and
memory at the peak. Each is measured in a process of its own, with images of one size and with sizes
that vary. No file of weights is read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage

from dense_kd import noise
from dense_kd.allocation import keep_freed_memory
from dense_kd.benchmark.batches import drawn_batch
from dense_kd.benchmark.machine import circumstances, load_average
from dense_kd.benchmark.models import Models
from dense_kd.engine.distilled import distillation_config
from dense_kd.json_files import write_json
from dense_kd.study.watching import peak_memory

RESULTS = Path(__file__).parent / "results" / "allocation.json"
CONFIG = "bccd/bckd_gfl_lite2_r18"
GIVEN_BACK, KEPT = "given back", "kept"
ONE_SIZE, VARIED = "one size", "sizes that vary"
BOXES = 7


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--steps", type=int, default=40, help="of each (%(default)s)")
    option("--threads", type=int, default=1, help="of torch (%(default)s)")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--process", nargs=2, help=argparse.SUPPRESS)  # sizes and memory: measure, and print
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    noise.silence()
    if args.process:
        sizes, memory = args.process
        print(json.dumps(measure(sizes, memory, args.steps)))
        return
    content = {
        **circumstances(torch.device("cpu")),
        "load_before": load_average(),
        "threads": args.threads,
        "config": CONFIG,
        "steps": args.steps,
        "runs": {
            sizes: {memory: in_a_process(sizes, memory, args) for memory in (GIVEN_BACK, KEPT)}
            for sizes in (ONE_SIZE, VARIED)
        },
        "load_after": load_average(),
    }
    write_json(args.results, content)
    for sizes, runs in content["runs"].items():
        ratio = runs[KEPT]["seconds"] / runs[GIVEN_BACK]["seconds"]
        print(f"{sizes}: {ratio:.2f} of the time of the processor")


def in_a_process(sizes: str, memory: str, args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`measure` finds in a process in which nothing is set otherwise."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    numbers = ("--steps", str(args.steps), "--threads", str(args.threads))
    command = [sys.executable, __file__, "--process", sizes, memory, *numbers]
    found = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def measure(sizes: str, memory: str, steps: int) -> dict[str, Any]:
    """Forward and backward pass of a distillation.

    Args:
        sizes: :data:`ONE_SIZE` or :data:`VARIED`.
        memory: :data:`GIVEN_BACK` or :data:`KEPT`.
        steps: that count.

    Returns:
        seconds of the processor and pages of a step, the mean of all; bytes at the peak.

    Raises:
        SystemExit: this system's C library cannot keep it.
    """
    if memory == KEPT and not keep_freed_memory():
        raise SystemExit("allocation: needs Linux with glibc")
    cfg = distillation_config(CONFIG, ["train.device=cpu", "model.teacher.weights=null"])
    model = Models(torch.device("cpu")).distiller(cfg).train()
    drawn = shapes(sizes)
    seconds, pages = [], []
    for index in range(steps + 2):
        images, size = next(drawn)
        batch = drawn_batch(cfg, model.student, images, size, BOXES)
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.process_time()
        with EventStorage(0):
            torch.stack([*model(batch).values()]).sum().backward()
        model.zero_grad(set_to_none=True)
        if index >= 2:  # the first ones warm up
            seconds.append(time.process_time() - start)
            pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt)
    return {
        "seconds": statistics.mean(seconds),
        "pages": statistics.mean(pages),
        "peak_bytes": peak_memory(model.device),
    }


def shapes(sizes: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """Images of a batch, and their height and width; the same in each process."""
    rng = random.Random(0)
    while True:
        varied = rng.choice((4, 8)), (rng.randrange(160, 401, 8), rng.randrange(200, 481, 8))
        yield varied if sizes == VARIED else (8, (240, 320))


if __name__ == "__main__":
    main()
