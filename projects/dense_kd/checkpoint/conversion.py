"""Turn a file of another project, or of a distiller, into one of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .classes import CLASS_NAMES, check_class_names, class_names
from .description import ENTRY, Description, description_of
from .errors import CheckpointError, listed
from .fitting import load_strictly
from .layouts.formats import Conversion, convert_state, model_state
from .layouts.wrappers import METHOD_PREFIX
from .reading.signatures import describe_content
from .reading.weights import as_tensor, read_content
from .writing import replace_atomically


def convert_file(
    source: str,
    target: str,
    part: str | None = None,
    *,
    background: bool = True,
    model: nn.Module | None = None,
    description: Description | None = None,
) -> Conversion:
    """Read a checkpoint of another project and write {"model": weights with our keys}.

    Args:
        source: anything :func:`.reading.weights.read_weights` takes.
        target: a local path; it is written whole or not at all.
        part: "student" or "teacher" of the checkpoint of a distiller of mmdetection.
        background: see :func:`.layouts.torchvision.convert_torchvision`.
        model: a model that the weights must fit; it holds them afterwards.
        description: of ``model``, to be written with it; by default that of ``source``.

    Raises:
        CheckpointError: ``source`` cannot be read, is of no model that we know, lacks part of its
            head, or does not fit ``model``. Nothing is written then.
    """
    content = read_content(source)
    state = model_state(content, part=part, source=source)
    names = class_names(content)
    conversion = None
    if state is not None:
        conversion = convert_state(state, background=background, source=source)
        if conversion is None and (model is not None or part is not None):
            conversion = _own(state, source)
    if conversion is None:
        raise CheckpointError(
            f"{source} is no checkpoint of mmdetection ('state_dict' with keys under backbone., "
            "neck. and bbox_head.), torchvision or timm: found "
            f"{describe_content(content)}; detectron2's files and ours need no conversion (with "
            "--config one is checked, with --part student taken out of a distiller's)"
        )
    if model is not None:
        load_strictly(model, source, conversion.weights)
        check_class_names(model, names, source)
    missing = conversion.missing_in_head()
    if missing:
        raise CheckpointError(
            f"the head of {source}, {conversion.project}'s {conversion.model}, is incomplete; it "
            f"lacks what would be our keys {', '.join(listed(missing))}"
        )
    written: dict[str, Any] = {"model": conversion.weights}
    if names:
        written[CLASS_NAMES] = names
    if description is None:
        description = description_of(content, source)
    if description is not None:
        written[ENTRY] = description.content()
    replace_atomically(target, lambda file: torch.save(written, file))
    return conversion


def _own(state: Mapping[str, Any], source: str) -> Conversion:
    """A file that has our keys already, without the parameters of distillation methods."""
    dropped = dict.fromkeys((k for k in state if k.startswith(METHOD_PREFIX)), "of a method")
    weights = {key: as_tensor(source, key, state[key]) for key in state if key not in dropped}
    return Conversion("dense_kd", None, weights, dropped=dropped)


def _digest_of_converter() -> str:
    """A name for the code that converts, so that a file of an older one is not taken for its."""
    here = Path(__file__)
    sha = hashlib.sha256()
    for file in (here, *sorted((here.parent / "layouts").glob("*.py"))):
        sha.update(file.read_bytes())
    return sha.hexdigest()[:8]


CONVERTER = _digest_of_converter()
"""In the names of files that :func:`convert_file` wrote and that are kept for the next time."""
