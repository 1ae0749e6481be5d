"""Read the weights of a file, without running code from it, and load them strictly."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from .errors import CheckpointError, listed
from .formats import convert

METHOD_PREFIX = "kd."
"""Before the parameters of distillation methods in the checkpoints of a run."""

# Constants of the config that old detectron2 checkpoints hold among the weights.
_ANCHOR_KEY = "anchor_generator.cell_anchors"
_NORMALISATION_KEYS = ("pixel_mean", "pixel_std")
# Counts batches for a momentum that is never None here; many files do not have it.
_OPTIONAL_SUFFIX = ".num_batches_tracked"
# In the errors of torch.load(weights_only=True), of torch 2.1 and of later ones.
_REFUSED_CLASS = re.compile(r"Unsupported (?:class|global: GLOBAL) ([\w.]+)")


def read_weights(path: str) -> dict[str, Tensor]:
    """The model's weights in a checkpoint, on the CPU.

    Args:
        path: a local file or anything detectron2's PathManager resolves (``detectron2://``,
            ``https://``) or :mod:`dense_kd.checkpoint.zoo` adds (``mmdet://``,
            ``torchvision://``): ``.pth`` with {"model": state dict} or a bare state dict, ``.pkl``
            of detectron2's model zoo, or ``.pth`` of mmdetection or torchvision, which are
            converted.

    Returns:
        {key: tensor} without a leading "module.", and without the parameters of distillation
        methods, so that a checkpoint of a distillation run gives its student.

    Raises:
        CheckpointError: the file is missing, truncated, holds no weights, or is another project's
            and of a model that we do not have.
    """
    content = read_content(path)
    conversion = convert(content, source=path)
    if conversion is not None:
        return conversion.weights
    weights = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        found = sorted(map(str, content))[:10] if isinstance(content, Mapping) else type(content)
        raise CheckpointError(
            f"{path} holds no weights: expected a state dict, or one under 'model'; found {found}"
        )
    weights = {_without(key, "module."): _as_tensor(path, key, v) for key, v in weights.items()}
    return {k: v for k, v in weights.items() if not k.startswith(METHOD_PREFIX)}


def load_strictly(model: nn.Module, path: str, weights: Mapping[str, Tensor] | None = None) -> None:
    """Load ``path`` into ``model`` so that nothing is left out on either side.

    Every parameter and buffer of the model must be in the file with its shape, every key of the
    file must be used, and every tensor must be finite afterwards. The model is filled with NaN
    first, so that what the file does not reach cannot pass for weights. What a module names in
    ``optional_buffers`` (see ``DenseDetector``) may be absent and then keeps its value.

    Args:
        model: where to.
        path: see :func:`read_weights`.
        weights: of ``path``, if they were read already.

    Raises:
        CheckpointError: lists the missing, unexpected, mis-shaped and non-finite keys. The model
            is unusable then.
    """
    weights = read_weights(path) if weights is None else weights
    expected = model.state_dict()
    _check_head(model, weights, path)
    _check_normalisation(model, weights, path)
    weights = {
        key: value
        for key, value in weights.items()
        if _ANCHOR_KEY not in key and key not in _NORMALISATION_KEYS
    }
    optional = _optional_keys(model)
    missing = [k for k in expected if k not in weights and k not in optional]
    unexpected = [k for k in weights if k not in expected and not k.endswith(_OPTIONAL_SUFFIX)]
    shapes = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(v.shape)}"
        for k, v in weights.items()
        if k in expected and expected[k].shape != v.shape
    ]
    not_finite = [
        k for k, v in weights.items() if v.is_floating_point() and not torch.isfinite(v).all()
    ]
    problems = {
        "missing in the file": missing,
        "unexpected in the file": unexpected,
        "of another shape": shapes,
        "not finite in the file": not_finite,
    }
    if any(problems.values()):
        raise CheckpointError(_mismatch(model, path, problems))
    with torch.no_grad():
        for key, tensor in expected.items():
            if tensor.is_floating_point() and (key in weights or key not in optional):
                tensor.fill_(float("nan"))
    model.load_state_dict(weights, strict=False)
    unreached = [
        key
        for key, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if unreached:
        raise CheckpointError(_mismatch(model, path, {"not finite after loading": unreached}))


def _optional_keys(model: nn.Module) -> set[str]:
    declared = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name in getattr(type(module), "optional_buffers", ())
    }
    return declared | {key for key in model.state_dict() if key.endswith(_OPTIONAL_SUFFIX)}


def _mismatch(model: nn.Module, path: str, problems: dict[str, list[str]]) -> str:
    lines = [
        f"{path} does not fit {type(model).__name__} ({len(model.state_dict())} tensors expected):"
    ]
    for what, keys in problems.items():
        if keys:
            lines.append(f"  {len(keys)} {what}:")
            lines += [f"    {key}" for key in listed(keys)]
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


def read_content(path: str) -> Any:
    """All that a file holds: containers, plain values and tensors or arrays, on the CPU.

    Args:
        path: as for :func:`read_weights`.
    """
    local = _local_path(path)
    try:
        with open(local, "rb") as file:
            if local.endswith(".pkl"):
                return _ArraysOnly(file, encoding="latin1").load()
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        size = os.path.getsize(local)
        refused = _REFUSED_CLASS.search(str(error))
        if refused:
            raise CheckpointError(
                f"{path} holds a {refused[1]}, expected weights and plain values: reading anything "
                "else could run code. Save its weights alone where it was made, as in "
                "torch.save({'state_dict': checkpoint['state_dict']}, file)"
            ) from error
        raise CheckpointError(
            f"{path} ({size} bytes) could not be read: {type(error).__name__}: {error}. Expected "
            "a checkpoint of torch (.pth) or of detectron2's model zoo (.pkl); if it was copied "
            "or downloaded, it may be incomplete: fetch it again"
        ) from error


def _local_path(path: str) -> str:
    try:
        local = PathManager.get_local_path(path)
    except CheckpointError:
        raise
    except Exception as error:  # handlers raise what their transport does
        raise CheckpointError(f"{path} could not be fetched: {error}") from error
    if not os.path.isfile(local):
        raise CheckpointError(
            f"{path} does not exist (looked for the file {os.path.abspath(local)}); "
            "expected a checkpoint, give the path of one"
        )
    return local


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what detectron2's model zoo files consist of: containers and numpy arrays."""

    ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
    }
    NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module: str, name: str) -> Any:
        if module in self.NUMPY_CORES and name in ("_reconstruct", "scalar"):
            return getattr(_numpy_multiarray(), name)
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")


def _numpy_multiarray() -> ModuleType:
    try:
        return importlib.import_module("numpy._core.multiarray")
    except ImportError:  # before numpy 1.26
        return importlib.import_module("numpy.core.multiarray")


def _without(key: str, prefix: str) -> str:
    return key[len(prefix) :] if key.startswith(prefix) else key


def _as_tensor(path: str, key: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Tensor):
        return value
    raise CheckpointError(
        f"{path} holds no weights: {key!r} is a {type(value).__name__}, expected a tensor"
    )
