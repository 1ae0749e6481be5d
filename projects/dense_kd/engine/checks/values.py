"""Options of the training loop, and numbers of the optimizer and the loaders."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, ListConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...arguments import is_integer, is_number, parameters_of
from ...diagnostics.making import FIGURES
from ...distiller import Distiller
from ...methods import KDMethod
from ...normalizers import MODES
from .calls import call_problems
from .errors import choice
from .rules import ANYTHING, SWITCH, TEXT, Rule, above_zero, integer, one_of, optional
from .tree import calls, calls_of, is_call_of, referred_names, select, target_of

_DDP = set(inspect.signature(DistributedDataParallel).parameters)
_SWITCHES_OF_DDP = ("broadcast_buffers", "find_unused_parameters", "fp16_compression")

TRAIN: dict[str, Rule | dict[str, Rule]] = {
    "output_dir": Rule("a folder", lambda v: isinstance(v, str) and bool(v.strip())),
    "init_checkpoint": optional(TEXT),
    "init_partial": SWITCH,
    "max_iter": integer(1),
    "skip_bad_steps": integer(0, " (0 ends the run at the first one)"),
    "max_minutes": Rule(
        "a number of at least 0 (minutes; 0 is no limit)",
        lambda v: is_number(v) and 0 <= v < math.inf,
    ),
    "seed": Rule(
        "a whole number from -1 (which draws one) to 4294967000",
        lambda v: is_integer(v) and -1 <= v <= 4294967000,
    ),
    "amp": {"enabled": SWITCH, "dtype": one_of("float16", "bfloat16")},
    "channels_last": SWITCH,
    "compile_losses": SWITCH,
    "quantization_aware": SWITCH,
    "ddp": {
        **dict.fromkeys(_SWITCHES_OF_DDP, SWITCH),
        **dict.fromkeys(sorted(_DDP - {"module", *_SWITCHES_OF_DDP}), ANYTHING),
    },
    "clip_grad": {
        "max_norm": above_zero(),
        "norm_type": above_zero(", or inf"),
    },
    "accumulate": integer(1, " (batches per iteration)"),
    "normalize": one_of(*MODES),
    "checkpointer": {
        "period": integer(1),
        "max_to_keep": optional(integer(1)),
        "file_prefix": TEXT,
        "best": optional(
            Rule(
                "a metric of the evaluation, as bbox/AP",
                lambda v: isinstance(v, str) and all(v.partition("/")),
            )
        ),
    },
    "eval_period": integer(0, " (0 evaluates at the end only)"),
    "log_period": integer(1),
    "diagnostics": {
        "period": integer(0, " (0 measures nothing)"),
        "images": integer(0, " (0 measures no distances)"),
    },
    "maps": {
        "period": integer(0, " (0 draws none)"),
        "images": integer(1, " (of the test set)"),
        "figures": Rule(
            f"a list of some of {', '.join(FIGURES)}, each once",
            lambda v: (
                isinstance(v, ListConfig)
                and 0 < len(v) == len(set(v))
                and all(name in FIGURES for name in v)
            ),
        ),
    },
    "device": TEXT,
    "overwrite": SWITCH,
    "cudnn_benchmark": SWITCH,
}
"""Every option of ``train``: a rule, or those of its entries."""

TRAIN_KEYS = set(TRAIN)
NULLABLE = {"clip_grad"}
REQUIRED = {
    "train": (
        "output_dir", "init_checkpoint", "max_iter", "amp", "ddp", "checkpointer", "eval_period",
        "log_period", "device",
    ),
    "evaluate": ("init_checkpoint", "ddp", "device"),
    "evaluate_teacher": ("device",),
}  # fmt: skip
_REQUIRED_ENTRIES = {
    "amp": ("enabled",),
    "checkpointer": ("period",),
    "clip_grad": ("max_norm",),
    "maps": ("period", "images", "figures"),
}
_ASKED = 1000
"""Iterations whose learning rate is looked at; all of a shorter run."""


def problems(cfg: DictConfig, mode: str, num_processes: int) -> Iterator[str]:
    """Those of ``train``, ``dataloader`` and, for training, optimizer and schedule.

    Args:
        cfg: the config.
        mode: "train", "evaluate" or "evaluate_teacher".
        num_processes: of the run.
    """
    referred = referred_names(cfg)
    yield from _group(cfg.train, TRAIN, "train", referred)
    for key in REQUIRED[mode]:
        if key not in cfg.train:
            yield f"train.{key} is missing; configs/common/train.py has all options"
    for part in ("train", "test", "unlabelled"):
        yield from _loader(cfg, part, num_processes)
    if mode == "train":
        yield from _precision(cfg)
        yield from _best(cfg)
        yield from _diagnostics(cfg)
        yield from _maps(cfg)
        yield from _iterations(cfg)
        yield from _optimizer(cfg)
        yield from _schedule(cfg)


def _group(
    node: DictConfig, rules: Mapping[str, Any], place: str, referred: set[str]
) -> Iterator[str]:
    for key in node:
        if key not in rules:
            if key not in referred:
                yield f"{place}.{key}: no such option; {choice(key, rules)}"
            continue
        rule, value = rules[key], select(node, key)
        if isinstance(rule, Rule):
            if not rule.holds(value):
                yield f"{place}.{key}={_shown(value)}: expected {rule.expected}"
        elif isinstance(value, DictConfig):
            yield from _group(value, rule, f"{place}.{key}", referred)
            for entry in _REQUIRED_ENTRIES.get(key, ()):
                if entry not in value:
                    yield f"{place}.{key}.{entry} is missing"
        elif value is not None or key not in NULLABLE:
            example = ", ".join(f"{place}.{key}.{entry}=..." for entry in list(rule)[:2])
            entries = ", ".join([*rule][:4]) + (", ..." if len(rule) > 4 else "")
            yield (
                f"{place}.{key}={_shown(value)}: expected entries ({entries}), as in {example}"
                + (", or null" if key in NULLABLE else "")
            )


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value!r} ({int(value)} without a point?)"
    return repr(value)


def _precision(cfg: DictConfig) -> Iterator[str]:
    dtype = select(cfg, "train.amp.dtype", "float16")
    device = str(select(cfg, "train.device", "cuda"))
    if select(cfg, "train.amp.enabled") is True and dtype == "float16" and device[:4] != "cuda":
        yield (
            f"train.amp.dtype=float16 with train.device={device}: float16 needs a GPU to train "
            "(its gradients are scaled there); give train.amp.dtype=bfloat16"
        )


def _best(cfg: DictConfig) -> Iterator[str]:
    metric = select(cfg, "train.checkpointer.best")
    if metric and select(cfg, "dataloader.evaluator") is None:
        yield (
            f"train.checkpointer.best={metric}: it is of the evaluation, and there is no "
            "dataloader.evaluator; leave it out"
        )


def _no_teacher(cfg: DictConfig, detector: bool = True) -> str | None:
    """Why there is no teacher to look at beside the student, in words; None if there is one, or it
    is not known.

    Args:
        cfg: the config.
        detector: whether it has to be one; or else a method may bring a network.
    """
    target = target_of(cfg.model) if isinstance(cfg.model, DictConfig) else None
    if target is None:
        return None
    if not is_call_of(cfg.model, Distiller):
        return f"model is a {getattr(target, '__name__', target)}"
    return "model.teacher is null" if detector and select(cfg, "model.teacher") is None else None


def _diagnostics(cfg: DictConfig) -> Iterator[str]:
    for key in ("period", "images"):
        value = select(cfg, f"train.diagnostics.{key}", 0)
        if not is_integer(value) or value < 1:
            continue
        why = _no_teacher(cfg, detector=key == "images")
        if why is not None:
            yield (
                f"train.diagnostics.{key}={value}: what is measured is of student and teacher, and "
                f"{why}; leave it at 0"
            )
        elif key == "images" and select(cfg, "dataloader.evaluator") is None:
            yield (
                f"train.diagnostics.images={value}: distances are measured at each evaluation, and "
                "there is no dataloader.evaluator; leave it at 0"
            )


def _maps(cfg: DictConfig) -> Iterator[str]:
    period, last = select(cfg, "train.maps.period", 0), select(cfg, "train.max_iter")
    if not is_integer(period) or period < 1:
        return
    given = f"train.maps.period={period}"
    why = _no_teacher(cfg)
    if why is not None:
        yield f"{given}: maps are of student and teacher, and {why}; leave it at 0"
    if select(cfg, "dataloader.test") is None:
        yield f"{given}: maps are of images of dataloader.test, and there is none; leave it at 0"
    if is_integer(last) and period > last:
        yield f"{given}: no map would be drawn in train.max_iter={last}; give at most {last}, or 0"


def _iterations(cfg: DictConfig) -> Iterator[str]:
    """Methods that would never teach."""
    last = select(cfg, "train.max_iter")
    for place, node in calls_of(cfg.model, "model", KDMethod):
        first = select(node, "first_iter", 0)
        if is_integer(first) and is_integer(last) and 0 < last <= first:
            yield (
                f"{place}.first_iter={first}: it would never teach in train.max_iter={last}; give "
                "a number below that, or leave the method out"
            )


def _loader(cfg: DictConfig, part: str, num_processes: int) -> Iterator[str]:
    loader, place = select(cfg, f"dataloader.{part}"), f"dataloader.{part}"
    if not isinstance(loader, DictConfig):
        return
    for key, rule in (("total_batch_size", integer(1)), ("num_workers", integer(0))):
        value = select(loader, key)
        if key in loader and not rule.holds(value):
            yield f"{place}.{key}={_shown(value)}: expected {rule.expected}"
    batch = select(loader, "total_batch_size")
    if is_integer(batch) and batch >= 1 and batch % num_processes:
        yield (
            f"{place}.total_batch_size={batch}: expected a multiple of the {num_processes} "
            f"processes, which share it; {batch // num_processes * num_processes or num_processes}"
            " is one"
        )


def _optimizer(cfg: DictConfig) -> Iterator[str]:
    """Its own constructor knows best, so it is called with one parameter of no model."""
    target = target_of(cfg.optimizer)
    if target is None:
        if not isinstance(select(cfg.optimizer, "_target_"), str):  # said already
            yield "optimizer: expected a LazyCall, as L(torch.optim.SGD)(params=..., lr=0.01)"
        return
    params = select(cfg.optimizer, "params")
    groups = target_of(params) if isinstance(params, DictConfig) else None
    known = parameters_of(groups) if groups else None
    if not known or "model" not in known:
        yield (
            "optimizer.params: expected a LazyCall that takes the model, as "
            "L(detectron2.solver.build.get_default_optimizer_params)()"
        )
    options = {key: select(cfg.optimizer, key) for key in cfg.optimizer if key != "params"}
    infinite = [key for key, value in options.items() if is_number(value) and math.isinf(value)]
    for key in infinite:
        yield f"optimizer.{key}={options[key]}: expected a finite number"
    if infinite or [*call_problems("optimizer", cfg.optimizer)]:
        return
    if isinstance(target, type) and issubclass(target, torch.optim.Optimizer):
        parameters = [{"params": [nn.Parameter(torch.zeros(1))]}]
        try:
            instantiate({**options, "params": parameters})
        except Exception as error:  # of any optimizer
            yield f"optimizer: {target.__qualname__} refuses its options: {error}"


def _schedule(cfg: DictConfig) -> Iterator[str]:
    if any(
        True for place, node in calls(cfg.lr_multiplier, "") for _ in call_problems(place, node)
    ):
        return  # said already
    last = select(cfg, "train.max_iter")
    last = last if is_integer(last) and last > 0 else _ASKED
    # After the last iteration, detectron2's hook asks once more.
    asked = sorted({i * last // _ASKED for i in range(_ASKED)} | {last - 1, last})
    try:
        multiplier = instantiate(cfg.lr_multiplier)
        values = {i: float(multiplier(i / last)) for i in asked}
    except Exception as error:  # of any schedule
        yield f"lr_multiplier cannot be built: {type(error).__name__}: {error}"
        return
    for place, node in calls(cfg.lr_multiplier, "lr_multiplier"):
        length = select(node, "warmup_length", 0)
        if is_number(length) and not 0 <= length <= 1:
            yield (
                f"{place}.warmup_length={length}: expected a share of the run, from 0 to 1; "
                f"iterations are divided by train.max_iter={select(cfg, 'train.max_iter')}"
            )
    for i, value in values.items():
        if not (math.isfinite(value) and value >= 0) and i < last:
            yield (
                f"lr_multiplier gives {value} at iteration {i} of {last}; expected a finite number "
                "of at least 0"
            )
            return
