"""Some iterations of a run, as its trainer makes them: their time and memory."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import torch
from detectron2.config import instantiate
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from ...compat import wait_for
from ..trainer import make_trainer
from .data import Batch
from .memory import PeakMemory
from .results import StepFacts


def timed_steps(
    cfg: DictConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    memory: PeakMemory,
    num_steps: int,
) -> StepFacts:
    """Train from iteration 0 on: one step that is not counted, and ``num_steps`` that are.

    Raises:
        FloatingPointError: losses or gradients are not finite.
    """
    device = torch.device(cfg.train.device)
    torch.backends.cudnn.benchmark = cfg.train.get("cudnn_benchmark", False)
    first = next(batches)
    trainer = make_trainer(cfg.train, model, itertools.chain([first], batches), optimizer)
    scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    memory.restart()
    seconds, waiting = [], []
    with EventStorage(0) as storage:
        trainer.storage = storage
        for iteration in range(min(num_steps + 1, cfg.train.max_iter)):
            trainer.iter = iteration
            start = time.perf_counter()
            trainer.run_step()
            wait_for(device)
            seconds.append(time.perf_counter() - start)
            waiting.append(storage.latest()["data_time"][0])
            scheduler.step()
            storage.step()
    counted = slice(1, None) if len(seconds) > 1 else slice(None)
    peak, memory_of = memory.read()
    return StepFacts(
        seconds=statistics.median(seconds[counted]),
        waiting=statistics.median(waiting[counted]),
        num_steps=len(seconds[counted]),
        num_images=len(first) * trainer.accumulate,
        memory=peak,
        memory_of=memory_of,
    )
