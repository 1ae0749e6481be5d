"""Load weights strictly, and say whether others fit well enough to start or to go on from."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from .classes import check_class_names, class_names
from .errors import CheckpointError, listed
from .layouts.timm import TIMM
from .layouts.wrappers import COMPILED, METHOD_PREFIX, clean_state, names_in
from .reading.signatures import describe_keys
from .reading.weights import read_content, weights_of

logger = logging.getLogger(__name__)

# Constants of the config that old detectron2 checkpoints hold among the weights.
_ANCHOR_KEY = "anchor_generator.cell_anchors"
_NORMALISATION_KEYS = ("pixel_mean", "pixel_std")
# Counts batches for a momentum that is never None here, and the places in Swin's windows: many
# files do not have them.
OPTIONAL_SUFFIXES = (".num_batches_tracked", ".relative_position_index")


def load_strictly(
    model: nn.Module, path: str, weights: Mapping[str, Tensor] | None = None
) -> list[str] | None:
    """Load ``path`` into ``model`` so that nothing is left out on either side.

    Every parameter and buffer of the model must be in the file with its shape, every key of the
    file must be used, and every tensor must be finite afterwards. The model is filled with NaN
    first, so that what the file does not reach cannot pass for weights. What a module names in
    ``optional_buffers`` (see ``DenseDetector``) may be absent and then keeps its value.

    Args:
        model: where to.
        path: see :func:`.reading.weights.read_weights`.
        weights: of ``path``, if they were read already.

    Returns:
        the names of the classes that the file was trained for, None where it says none.

    Raises:
        CheckpointError: lists the missing, unexpected, mis-shaped and non-finite keys; or the
            file's names of classes are not the model's. The model is unusable then.
    """
    names_of_classes = None
    if weights is None:
        content = read_content(path)
        weights = weights_of(content, path)
        names_of_classes = class_names(content)
        check_class_names(model, names_of_classes, path)
    expected = clean_state(model)
    _check_head(model, weights, path)
    _check_normalisation(model, weights, path)
    weights = {
        key: value
        for key, value in weights.items()
        if _ANCHOR_KEY not in key and key not in _NORMALISATION_KEYS
    }
    optional = _optional_keys(model)
    missing = [k for k in expected if k not in weights and k not in optional]
    unexpected = [k for k in weights if k not in expected and not k.endswith(OPTIONAL_SUFFIXES)]
    shapes = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(v.shape)}"
        for k, v in weights.items()
        if k in expected and expected[k].shape != v.shape
    ]
    problems = {
        "missing in the file": missing,
        "unexpected in the file": unexpected,
        "of another shape": shapes,
        "not finite in the file": list(not_finite(weights)),
    }
    if any(problems.values()):
        raise CheckpointError(_mismatch(model, path, problems))
    with torch.no_grad():
        for key, tensor in expected.items():
            if tensor.is_floating_point() and (key in weights or key not in optional):
                tensor.fill_(float("nan"))
    names = names_in(model)
    model.load_state_dict({names.get(k, k): v for k, v in weights.items()}, strict=False)
    unreached = list(not_finite(clean_state(model)))
    if unreached:
        raise CheckpointError(_mismatch(model, path, {"not finite after loading": unreached}))
    return names_of_classes


def check_initial(
    model: nn.Module,
    path: str,
    *,
    missing: Sequence[str],
    unused: Mapping[str, str],
    partial: bool = False,
) -> None:
    """Say what a model that starts from ``path`` has of it, and stop if that is too little.

    At least half of the file's tensors must be used, and they must make up half of the model, or
    half of its backbone, as a classifier's do.

    Args:
        model: with what fitted in it.
        path: named in the report.
        missing: keys of the model that are not in the file, or of another shape there.
        unused: {key of the file: why it is not in the model}.
        partial: accept whatever fits.

    Raises:
        CheckpointError: nothing or too little fits, or not all of a backbone of timm, whose name
            says what is to fit; and not ``partial``.
    """
    unused = {k: why for k, why in unused.items() if not _is_constant(k) and not _is_method(k)}
    state = [k for k in clean_state(model) if not _is_constant(k) and not _is_method(k)]
    absent = set(missing)
    used = [key for key in state if key not in absent]
    body = [key for key in state if key.startswith("backbone.")]
    used_body = [key for key in body if key not in absent]
    total = len(used) + len(unused)
    of_timm = [key for key in state if key.startswith(TIMM)]
    lacking = [key for key in of_timm if key in absent]
    if lacking and len(lacking) < len(of_timm) and not partial:
        raise CheckpointError(
            f"{path} has not all of the backbone, a network of timm: {len(lacking)} of its "
            f"{len(of_timm)} tensors are missing or have another shape there, such as "
            f"{', '.join(listed(lacking, 5))}. Give the weights of the model that the backbone's "
            "name says, or train.init_partial=True to start from what fits"
        )
    enough = used and 2 * len(used) >= total
    enough = enough and (2 * len(used) >= len(state) or 2 * len(used_body) >= max(len(body), 1))
    report = (
        f"{path}: {len(used)} of its {total} tensors go into {type(model).__name__}, which has "
        f"{len(state)}"
    )
    if unused:
        rows = [(f"    {key}", unused[key]) for key in listed(list(unused))[:20]]
        report += f"; {len(unused)} are not used:\n{tabulate(rows, tablefmt='plain')}"
    if enough or partial:
        logger.log(logging.WARNING if unused or not used else logging.INFO, report)
        return
    kind = describe_keys(unused)
    raise CheckpointError(
        (f"{path} looks like a checkpoint of {kind}. " if kind else "")
        + report
        + "\nA file to start from must fill half of the model, or of its backbone, and half of it "
        "must be used. Give another train.init_checkpoint, or train.init_partial=True to start "
        "from what fits"
    )


def check_resumed(
    model: nn.Module, path: str, *, missing: Sequence[str], unused: Mapping[str, str]
) -> None:
    """Refuse to go on from ``path`` if the run that wrote it had another model.

    Args:
        model, path, missing, unused: as for :func:`check_initial`.

    Raises:
        CheckpointError: lists the keys, those of distillation methods included.
    """
    optional = _optional_keys(model)
    problems = {
        "missing in the file": [k for k in missing if k not in optional and k not in unused],
        "not in the model": [
            k if why == NOT_IN_MODEL else f"{k}: {why}"
            for k, why in unused.items()
            if not _is_constant(k)
        ],
    }
    if any(problems.values()):
        raise CheckpointError(
            _mismatch(model, path, problems)
            + " A run goes on with the model and the methods it was started with; to start another "
            "one from its weights, give them as train.init_checkpoint with a new train.output_dir."
        )


def check_finite(model: nn.Module, path: str) -> None:
    """Refuse to train on with numbers of ``path`` that are not finite.

    Batch statistics do not show in the losses of training.

    Args:
        model: into which ``path`` was loaded.
        path: named in the message.

    Raises:
        CheckpointError: lists the tensors.
    """
    bad = list(not_finite(clean_state(model)))
    if bad:
        raise CheckpointError(
            _mismatch(model, path, {"not finite after loading": bad})
            + " Nothing can be learnt from such numbers: take an earlier checkpoint of that run."
        )


NOT_IN_MODEL = "not in the model"
"""Why a key of a file is not used."""


def _all_finite(numbers: torch.Tensor) -> bool:
    # Their sum takes half the time; it is finite only if they all are, and may overflow.
    total = numbers.sum(dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(numbers).all())


def not_finite(content: Any, place: str = "") -> Iterator[str]:
    """Where nested containers hold tensors that are not finite, or numbers that are NaN."""
    if isinstance(content, torch.Tensor):
        if content.is_floating_point() and not _all_finite(content):
            yield place
    elif isinstance(content, float) and math.isnan(content):  # infinity may be a bound
        yield place
    elif isinstance(content, (Mapping, list, tuple)):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from not_finite(value, f"{place}.{key}" if place else str(key))


def _is_constant(key: str) -> bool:
    return _ANCHOR_KEY in key or key in _NORMALISATION_KEYS or key.endswith(OPTIONAL_SUFFIXES)


def _is_method(key: str) -> bool:
    return key.startswith(METHOD_PREFIX)


def run_state_keys(model: nn.Module) -> set[str]:
    """The keys of what modules name in ``optional_buffers``, under whatever name they are saved."""
    state = model.state_dict(keep_vars=True)
    declared = {
        id(getattr(module, name, None))
        for module in model.modules()
        for name in getattr(type(module), "optional_buffers", ())
    }
    of_model = getattr(type(model), "optional_buffers", ())  # also what only its state dict has
    return {
        key.replace(COMPILED, "")
        for key, value in state.items()
        if id(value) in declared or key in of_model
    }


def _optional_keys(model: nn.Module) -> set[str]:
    """What a file may lack: :func:`run_state_keys`, and what many files do not have."""
    suffixed = {key for key in clean_state(model) if key.endswith(OPTIONAL_SUFFIXES)}
    return run_state_keys(model) | suffixed


def _mismatch(model: nn.Module, path: str, problems: dict[str, list[str]]) -> str:
    lines = [
        f"{path} does not fit {type(model).__name__} ({len(model.state_dict())} tensors expected):"
    ]
    for what, keys in problems.items():
        if keys:
            lines.append(f"  {len(keys)} {what}:")
            lines += [f"    {key}" for key in listed(keys)]
    kind = describe_keys(key for keys in problems.values() for key in keys)
    if kind:
        lines.append(f"It looks like a checkpoint of {kind}.")
    lines.append("Use the config the file was trained with, or another file.")
    return "\n".join(lines)


def _check_head(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    if (
        any(k.startswith("head.") for k in model.state_dict())
        and weights
        and all(k.startswith("backbone.bottom_up.") for k in weights)
    ):
        raise CheckpointError(
            f"{path} holds a backbone alone ({len(weights)} tensors), which is no detector: it has "
            "no FPN and no head. Expected the checkpoint of a trained detector; a backbone's "
            "ImageNet weights are for train.init_checkpoint"
        )


def _check_normalisation(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    for key in _NORMALISATION_KEYS:
        ours = getattr(model, key, None)
        if key not in weights or ours is None:
            continue
        theirs = weights[key].flatten().float()
        if theirs.numel() != ours.numel() or not torch.allclose(
            theirs, ours.flatten().cpu(), rtol=1e-3
        ):
            raise CheckpointError(
                f"{path} was trained with {key}={theirs.tolist()}, the config of "
                f"{type(model).__name__} says {ours.flatten().tolist()}; use the file's values"
            )
