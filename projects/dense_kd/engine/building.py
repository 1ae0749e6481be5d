"""Objects of a config; what a constructor trips over becomes an error that names the call."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import compat
from ..arguments import is_finite_number
from ..distiller import Distiller
from ..errors import MissingExtraError
from ..methods import DistillationError
from ..quantization import FakeQuantization
from .checks import RunError
from .checks.tree import target_of

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers that can."""

_WAYS = {"fused", "foreach", "capturable", "differentiable"}
"""Arguments that choose how a step is computed."""

BARE = (TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""Errors that say what Python met, and not what was expected."""


def build(node: DictConfig, place: str) -> Any:
    """The object of a LazyCall.

    Raises:
        RunError: a constructor refused its arguments, or failed with any other error.
        DistillationError: student, teacher and methods do not go together.
    """
    try:
        return instantiate(node)
    except (DistillationError, MissingExtraError):
        raise
    except Exception as error:  # of any constructor
        raise cannot_be_built(place, error) from error


def build_model(cfg: DictConfig) -> nn.Module:
    """``cfg.model`` on ``train.device``, with its maps in the order of ``train.channels_last``.

    Raises:
        RunError, DistillationError: see :func:`build`.
    """
    model = build(cfg.model, "model")
    if not isinstance(model, nn.Module):
        raise RunError([f"model is built as a {type(model).__name__}; expected a torch module"])
    return arranged(model.to(cfg.train.device), cfg.train)


def build_training_model(cfg: DictConfig) -> nn.Module:
    """:func:`build_model` as it is trained, see :func:`quantized`.

    Raises:
        RunError, DistillationError: see :func:`build`; also if a method would never teach in
            ``train.max_iter``.
    """
    model = build_model(cfg)
    if isinstance(model, Distiller):
        problems = [*_idle_methods(model, cfg.train.max_iter)]
        if problems:
            raise RunError(problems)
    return quantized(model, cfg.train)


def _idle_methods(model: Distiller, max_iter: int) -> Iterator[str]:
    """Methods whose losses are multiplied with 0 in every iteration of a run."""
    for name, method in model.kd.named_methods():
        last = max_iter if method.last_iter is None else min(max_iter, method.last_iter)
        teaching = range(method.first_iter, last)
        if any(method.warmup_factor(iteration) > 0 for iteration in teaching):
            continue
        place, until = f"model.methods.{name}", f"train.max_iter={max_iter}"
        if last < max_iter:
            until = f"{place}.last_iter={last}"
        warmup = f"warmup_iters={method.warmup_iters}"
        begins = f" and first_iter={method.first_iter}" if method.first_iter else ""
        yield (
            f"{place}: {type(method).__name__} would never teach until {until}: with {warmup}"
            f"{begins} its losses are 0 there; give fewer warmup_iters, train for longer, or leave "
            "the method out"
        )


def quantized(model: nn.Module, train: DictConfig) -> nn.Module:
    """``model`` itself, which with ``quantization_aware`` in ``train`` computes as if in 8-bit
    integers; of a Distiller, the student does."""
    if train.get("quantization_aware", False):
        FakeQuantization(model.student if isinstance(model, Distiller) else model)
    return model


def arranged(model: nn.Module, train: DictConfig) -> nn.Module:
    """``model`` itself; of a Distiller, the student and the methods, not the teacher.

    With ``channels_last`` in ``train``, its weights lie in memory as (N, H, W, C), in which
    convolutions leave their maps, too.
    """
    if train.get("channels_last", False):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def build_optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """``cfg.optimizer`` of the parameters of ``model``.

    On a CPU, where torch by itself goes from tensor to tensor, Adam, AdamW and SGD do their steps
    in one pass over each, if the config leaves that open and torch can (2.4).

    Raises:
        RunError: see :func:`build`; or a parameter gets a rate or a decay that is no number.
    """
    described = copy.deepcopy(cfg.optimizer)  # cfg stays what can be written to a file
    described.params.model = model
    if (
        torch.device(cfg.train.device).type == "cpu"
        and compat.has_fused_steps()
        and target_of(described) in _FUSED
        and not _WAYS & described.keys()
    ):
        described.fused = True
    optimizer = build(described, "optimizer")
    problems = [*_group_problems(optimizer, model)]
    if problems:
        raise RunError(problems)
    return optimizer


def _group_problems(optimizer: Optimizer, model: nn.Module) -> Iterator[str]:
    """What ``params`` and its overrides give to parameters, no constructor looks at."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, list[str]] = {}
    for group in optimizer.param_groups:
        for key in ("lr", "weight_decay"):
            value = group.get(key, 0)
            number = value.item() if isinstance(value, Tensor) else value
            if not is_finite_number(number) or number < 0:
                of_them = [names.get(each, "a parameter") for each in group["params"]]
                found.setdefault(f"{key}={value!r}", []).extend(of_them or ["no parameter"])
    for what, of_them in found.items():
        more = f" and {len(of_them) - 1} more" if len(of_them) > 1 else ""
        yield (
            f"optimizer.params gives {of_them[0]}{more} a {what}: expected a finite "
            "number of at least 0"
        )


def count_parameters(model: Any) -> int:
    """Of a model that a LazyConfig describes; no memory is taken for them.

    Args:
        model: the LazyCall.
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in instantiate(model).parameters())


def cannot_be_built(place: str, error: Exception) -> RunError:
    """``error`` with the innermost call that it was raised in."""
    names = [
        getattr(frame.f_locals["cls"], "__qualname__", str(frame.f_locals["cls"]))
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code is instantiate.__code__ and "cls" in frame.f_locals
    ]
    what = f"{names[-1]} fails with " if names else ""
    return RunError([f"{place} cannot be built: {what}{type(error).__name__}: {error}"])
