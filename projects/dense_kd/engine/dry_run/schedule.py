"""The learning rate over a run, and how long the run is."""

from __future__ import annotations

import math
from collections.abc import Callable

from detectron2.config import instantiate
from omegaconf import DictConfig

from ...arguments import is_number
from ..checks.tree import select, target_of
from .results import ScheduleFacts

_GRID = 2000  # places that are looked at; steps between two of them are then searched for


def schedule(cfg: DictConfig, num_images: int | None) -> ScheduleFacts:
    """The schedule of a config.

    Args:
        cfg: as written, before anything was changed to try it.
        num_images: of the training set, after the filter; None if unknown.
    """
    multiplier = instantiate(cfg.lr_multiplier)
    max_iter, rate = cfg.train.max_iter, select(cfg, "optimizer.lr")
    base = float(rate) if is_number(rate) else 1.0
    batch = select(cfg, "dataloader.train.total_batch_size")
    images = batch * cfg.train.get("accumulate", 1) if is_number(batch) else None
    amp = cfg.train.amp
    period = cfg.train.eval_period
    evaluated = select(cfg, "dataloader.evaluator") is not None
    target = target_of(cfg.optimizer)
    return ScheduleFacts(
        max_iter=max_iter,
        images_per_iteration=images,
        epochs=max_iter * images / num_images if images and num_images else None,
        optimizer=getattr(target, "__name__", str(target)),
        rates=[
            (iteration, base * value, what)
            for iteration, value, what in turning_points(
                lambda iteration: float(multiplier(iteration / max_iter)), max_iter
            )
        ],
        clip_grad=select(cfg, "train.clip_grad.max_norm"),
        precision=amp.get("dtype", "float16") if amp.enabled else "float32",
        num_evaluations=(math.ceil(max_iter / period) if period else 1) if evaluated else 0,
    )


def turning_points(
    multiplier: Callable[[int], float], max_iter: int
) -> list[tuple[int, float, str]]:
    """(iteration, multiplier, what): the start, the end of a warm-up, drops, and the last one.

    A drop is a fall by a tenth or more, from one iteration to the next, of what was level.
    """
    last = max_iter - 1
    places = sorted({round(i * last / _GRID) for i in range(_GRID + 1)})
    values = {place: multiplier(place) for place in places}
    points = [(0, values[0], "start")]
    highest = max(places, key=lambda place: (values[place], -place))
    if 0 < highest < last:
        low = max((place for place in places if place < highest), default=0)
        first = _search(lambda place: multiplier(place) >= values[highest], low, highest)
        points.append((first, values[highest], "after the warm-up"))
    for before, after in zip(places, places[1:]):
        if values[after] < 0.9 * values[before]:
            first = _search(_below(multiplier, 0.9 * values[before]), before, after)
            was_level = first > 1 and multiplier(first - 2) <= 1.001 * multiplier(first - 1)
            if was_level and multiplier(first) < 0.9 * multiplier(first - 1):
                points.append((first, multiplier(first), "drop"))
    if last > points[-1][0]:
        points.append((last, values[last], "end"))
    return points


def _search(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first number above ``low`` at which ``holds``, which it does at ``high``."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _below(multiplier: Callable[[int], float], limit: float) -> Callable[[int], bool]:
    return lambda place: multiplier(place) < limit
