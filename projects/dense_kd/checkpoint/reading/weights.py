"""Read the weights of a file, without running code from it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor

from ..errors import CheckpointError, UnreadableError
from ..layouts.formats import convert_state, model_state
from ..layouts.wrappers import CONTAINERS, METHOD_PREFIX
from .archive import read_file
from .pickled_objects import ForbiddenError
from .signatures import describe_content


def read_weights(path: str) -> dict[str, Tensor]:
    """The model's weights in a checkpoint, on the CPU.

    Args:
        path: a local file or anything detectron2's PathManager resolves (``detectron2://``,
            ``https://``) or :mod:`dense_kd.checkpoint.zoo` adds (``mmdet://``,
            ``torchvision://``): ``.pth`` with {"model": state dict} or a bare state dict, ``.pkl``
            of detectron2's model zoo, or ``.pth`` of mmdetection or torchvision, which are
            converted.

    Returns:
        {key: tensor} without the prefixes of :mod:`dense_kd.checkpoint.layouts.wrappers`, and
        without the parameters of distillation methods, so that a checkpoint of a distillation run
        gives its student.

    Raises:
        CheckpointError: the file is missing, truncated, holds no weights, or is another project's
            and of a model that we do not have.
    """
    return weights_of(read_content(path), path)


def weights_of(content: Any, path: str) -> dict[str, Tensor]:
    """:func:`read_weights` of the content of ``path``."""
    state = model_state(content, source=path)
    if state is None:
        raise CheckpointError(
            f"{path} holds no weights: expected a state dict, or one under one of "
            f"{', '.join(map(repr, CONTAINERS))}; found {describe_content(content)}"
        )
    conversion = convert_state(state, source=path)
    if conversion is not None:
        return conversion.weights
    return {
        key: as_tensor(path, key, value)
        for key, value in state.items()
        if not key.startswith(METHOD_PREFIX)
    }


def as_tensor(path: str, key: str, value: Any) -> Tensor:
    """A tensor as it is, an array of numbers as one."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    raise CheckpointError(
        f"{path} holds no weights: {key!r} is a {type(value).__name__}, expected a tensor"
    )


def read_content(path: str) -> Any:
    """All that a file holds: containers, plain values and tensors or arrays, on the CPU.

    Args:
        path: as for :func:`read_weights`.
    """
    local = _local_path(path)
    size = os.path.getsize(local)
    try:
        with open(local, "rb") as file:
            return read_file(file, size)
    except ForbiddenError as error:
        raise CheckpointError(
            f"{path} holds a {error.name}, expected weights and plain values: {error}, since "
            "reading anything else could run code. Save its weights alone where it was made, as "
            "in torch.save({'state_dict': checkpoint['state_dict']}, file)"
        ) from error
    except Exception as error:  # a damaged file gives many kinds
        raise UnreadableError(
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
    if os.path.isdir(local):
        raise CheckpointError(f"{path} is a folder, expected the file of a checkpoint")
    if not os.path.isfile(local):
        raise CheckpointError(
            f"{path} does not exist (looked for the file {os.path.abspath(local)}); "
            "expected a checkpoint, give the path of one"
        )
    return local
