"""Weights of timm's own hub: ``timm://<model>`` and ``timm://<model>.<tag>``, loaded by timm."""

from __future__ import annotations

import os
from typing import IO, Any

import torch
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from ..timm_models import check_timm_name, require_timm
from . import conversion
from .errors import CheckpointError
from .layouts.timm import TIMM, convert_timm_classifier
from .writing import replace_atomically

PREFIX = "timm://"


class TimmHandler(PathHandler):
    """Resolves ``timm://<model>`` to what timm loads for it, under our keys of its backbone."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path[len(PREFIX) :]
        try:
            timm = require_timm()
            check_timm_name(name)
        except (ImportError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        folder = os.path.join(get_cache_dir(), "timm")
        converted = os.path.join(folder, f"{name}-{timm.__version__}.{conversion.CONVERTER}.pth")
        if force or not os.path.isfile(converted):
            weights = _weights(path, name)
            os.makedirs(folder, exist_ok=True)
            replace_atomically(converted, lambda file: torch.save({"model": weights}, file))
        return converted

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


def _weights(path: str, name: str) -> dict[str, torch.Tensor]:
    timm = require_timm()
    try:
        classifier = timm.create_model(name, pretrained=True)
        features = timm.create_model(name, features_only=True)
    except Exception as error:  # of the transport, or of a model without weights or feature maps
        raise CheckpointError(
            f"{path} could not be loaded by timm: {type(error).__name__}: {error}. If it is the "
            "network, fetch the file of the model where there is one (https://huggingface.co/timm) "
            "and give its path"
        ) from error
    expected = {f"{TIMM}{key}": value for key, value in features.state_dict().items()}
    weights, _ = convert_timm_classifier(classifier.state_dict(), expected, path)
    return weights
