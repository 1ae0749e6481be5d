"""Turn a file of mmdetection's or torchvision's into one of ours."""

from __future__ import annotations

import torch
from torch import nn

from .errors import CheckpointError, listed
from .formats import Conversion, convert
from .reading import load_strictly, read_content
from .writing import replace_atomically


def convert_file(
    source: str,
    target: str,
    part: str | None = None,
    *,
    background: bool = True,
    model: nn.Module | None = None,
) -> Conversion:
    """Read a checkpoint of another project and write {"model": weights with our keys}.

    Args:
        source: anything :func:`read_weights` takes.
        target: a local path; it is written whole or not at all.
        part: "student" or "teacher" of the checkpoint of a distiller of mmdetection.
        background: see :func:`convert_torchvision`.
        model: a model that the weights must fit; it holds them afterwards.

    Raises:
        CheckpointError: ``source`` cannot be read, is of no model that we know, lacks part of its
            head, or does not fit ``model``. Nothing is written then.
    """
    content = read_content(source)
    conversion = convert(content, part=part, background=background, source=source)
    if conversion is None:
        found = sorted(map(str, content))[:10] if isinstance(content, dict) else type(content)
        raise CheckpointError(
            f"{source} is no checkpoint of mmdetection ('state_dict' with keys under backbone., "
            f"neck. and bbox_head.) or torchvision: found {found}; detectron2's files and ours "
            "need no conversion"
        )
    if model is not None:
        load_strictly(model, source, conversion.weights)
    missing = conversion.missing_in_head()
    if missing:
        raise CheckpointError(
            f"the head of {source}, {conversion.project}'s {conversion.model}, is incomplete; it "
            f"lacks what would be our keys {', '.join(listed(missing))}"
        )
    replace_atomically(target, lambda file: torch.save({"model": conversion.weights}, file))
    return conversion
