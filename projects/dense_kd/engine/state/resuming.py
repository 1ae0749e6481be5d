"""What a resumed run takes over from the checkpoint, and what from how it was built."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm
from torch import Tensor

from ...arguments import is_number
from ...checkpoint.errors import CheckpointError

logger = logging.getLogger(__name__)

# Ways to compute the same step; which of them a group has depends on the version of torch.
_IMPLEMENTATION = {
    "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused", "initial_lr",
    "maximize",
}  # fmt: skip


_SHAPED_AS_PARAMETERS = {
    "exp_avg", "exp_avg_sq", "grad_avg", "max_exp_avg_sq", "momentum_buffer", "square_avg",
}  # fmt: skip
"""What optimizers of torch and others keep for each number of a parameter."""


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Of each group; its ``lr`` is the one that a schedule multiplies."""
    return [
        {
            **{name: value for name, value in group.items() if name != "params"},
            "lr": group.get("initial_lr", group["lr"]),
        }
        for group in optimizer.param_groups
    ]


def check_same_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Compare an optimizer with that of a trainer's state dict.

    Raises:
        CheckpointError: it is of another class, or for other numbers or shapes of parameters, so
            that its moments in the checkpoint do not belong to it.
    """
    ours, theirs = optimizer.param_groups, state["optimizer"]["param_groups"]
    # Absent in the checkpoints of detectron2's own trainer.
    name, saved_name = type(optimizer).__qualname__, state.get("optimizer_class")
    unknown = set(ours[0]) - set(theirs[0]) - _IMPLEMENTATION
    if saved_name not in (None, name) or unknown:
        raise CheckpointError(
            f"the checkpoint was written with the optimizer {saved_name or 'of another class'} "
            f"({', '.join(sorted(set(theirs[0]) - {'params'}))}), this run has {name}: it cannot "
            "go on with its state. Take the optimizer of the checkpoint, or start a run of its "
            "own from these weights (train.init_checkpoint, without --resume)"
        )
    sizes, saved_sizes = ([len(group["params"]) for group in groups] for groups in (ours, theirs))
    if sizes != saved_sizes:
        raise CheckpointError(
            f"the optimizer of the checkpoint has {sum(saved_sizes)} parameters in "
            f"{len(saved_sizes)} groups, that of this run {sum(sizes)} in {len(sizes)}: another "
            "model, other methods, or another choice of what is trained. Resume with the config of "
            "the checkpoint, or start a run of its own from these weights "
            "(train.init_checkpoint, without --resume)"
        )
    _check_moments(optimizer, state["optimizer"])


def _check_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """A step would fail on others, or, worse, broadcast them."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    indices = (index for group in state["param_groups"] for index in group["params"])
    moments = state["state"]
    expected = {name for kept in moments.values() for name in kept} & _SHAPED_AS_PARAMETERS
    tensors = {isinstance(kept["step"], Tensor) for kept in moments.values() if "step" in kept}
    for parameter, index in zip(parameters, indices):
        step = moments.get(index, {}).get("step", 0)
        if not (step.numel() == 1 if isinstance(step, Tensor) else is_number(step)):
            found = f"shape {tuple(step.shape)}" if isinstance(step, Tensor) else repr(step)[:40]
            raise CheckpointError(
                f"the optimizer of the checkpoint has a step of {found} for parameter {index}, "
                "expected one number: a damaged file. Resume from an earlier one"
            )
        for name in sorted(expected) if moments.get(index) else ():
            value = moments[index].get(name, "")
            if value is None and name == "momentum_buffer":  # as SGD has it without momentum
                continue
            shape = tuple(value.shape) if isinstance(value, Tensor) else None
            if shape != tuple(parameter.shape):
                found = f"of shape {shape}" if shape is not None else "that is no tensor"
                raise CheckpointError(
                    f"the optimizer of the checkpoint has an {name} {found} for parameter {index}, "
                    f"whose shape is {tuple(parameter.shape)} in this run: another model, or a "
                    "damaged file. Resume with the config of the checkpoint, or from an earlier one"
                )
    if len(tensors) > 1:  # versions of torch that read both go by the first of them
        raise CheckpointError(
            "the optimizer of the checkpoint has steps of some parameters as numbers and of others "
            "as tensors, expected one of the two: a damaged file. Resume from an earlier one"
        )


def keep_hyperparameters(optimizer: torch.optim.Optimizer, built: list[dict[str, Any]]) -> None:
    """After the optimizer's state was loaded: go on with its own hyperparameters, and say so.

    Args:
        optimizer: whose groups have those of the checkpoint now.
        built: its :func:`hyperparameters` before.
    """
    changes: Counter[str] = Counter()
    for group, options in zip(optimizer.param_groups, built):
        for name, value in options.items():
            before = group.get("initial_lr", group["lr"]) if name == "lr" else group.get(name)
            if name not in group or name == "initial_lr" or _equal(before, value):
                continue
            if name in _IMPLEMENTATION:
                group[name] = value
                continue
            changes[f"{name} {before} -> {value}"] += 1
            if name == "lr":
                share = group["lr"] / before if before else 1.0  # of the schedule
                group["lr"] = value * share
                if "initial_lr" in group:
                    group["initial_lr"] = value
            else:
                group[name] = value
    if changes:
        said = "; ".join(f"{change} (groups: {count})" for change, count in changes.items())
        logger.warning(
            f"The optimizer goes on with other hyperparameters than the checkpoint's: {said}"
        )


def what_is_lost(state: Mapping[str, Any], loader: Any, model: Any) -> Iterator[str]:
    """Why a run does not go on from a trainer's state dict exactly, as far as a trainer knows.

    Args:
        state: of the checkpoint.
        loader: of the training, which has been told its place.
        model: which may have a method ``what_is_lost`` of its own, for what it has kept.
    """
    name = type(loader).__name__
    if not hasattr(loader, "load_state_dict"):
        yield (
            f"{name}, the loader of dataloader.train, does not tell its place in the data, so it "
            "begins anew; dense_kd.data.TrainLoader goes on"
        )
    elif "data_loader" not in state:
        yield f"the checkpoint does not have the place in the data, so {name} begins anew"
    if "random" not in state:
        yield "the checkpoint does not have the random generators"
    processes = comm.get_world_size()
    saved = state.get("num_processes", processes)
    if saved != processes:
        yield f"it had {saved} processes and has {processes} now"
    elif processes > 1 and len(state.get("other_processes", ())) != processes - 1:
        yield (
            "the checkpoint has the random generators and loss normalisers of the first process "
            "alone"
        )
    if hasattr(model, "what_is_lost"):
        yield from model.what_is_lost()


def save_final(hook: PeriodicCheckpointer, iteration: int) -> None:
    """Write the final checkpoint of a run whose last iteration was saved, if it is not the last."""
    checkpointer, name = hook.checkpointer, f"{hook.file_prefix}_final"
    last = checkpointer.get_checkpoint_file() if checkpointer.has_checkpoint() else ""
    if last and os.path.basename(last) != f"{name}.pth":
        checkpointer.save(name, iteration=iteration)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return list(a) == list(b)
    return bool(a == b)
