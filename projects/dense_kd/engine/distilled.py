"""The checkpoint of a distillation run in its Distiller again, to be looked at."""

from __future__ import annotations

import torch

from ..checkpoint import (
    METHOD_PREFIX,
    CheckpointError,
    check_class_names,
    class_names,
    load_strictly,
    read_content,
)
from ..checkpoint.layouts.formats import model_state
from ..checkpoint.reading.weights import weights_of
from ..distiller import Distiller


def load_distilled(model: Distiller, path: str) -> set[str]:
    """Load the student strictly, and the parameters of those methods that the file has.

    Args:
        model: what the config of the run describes.
        path: a checkpoint of the run, or one of its student alone.

    Returns:
        names of the methods with parameters that the file does not have: they are as they were.

    Raises:
        CheckpointError: the file does not fit.
    """
    content = read_content(path)
    check_class_names(model.student, class_names(content), path)
    load_strictly(model.student, path, weights_of(content, path))
    state = model_state(content, source=path) or {}
    given = {
        key[len(METHOD_PREFIX) :]: value
        for key, value in state.items()
        if key.startswith(METHOD_PREFIX)
    }
    ours = model.kd.state_dict()
    shapes = [
        f"{METHOD_PREFIX}{key}: expected {tuple(ours[key].shape)}, found {tuple(value.shape)}"
        for key, value in given.items()
        if key in ours and value.shape != ours[key].shape
    ]
    if shapes:
        raise CheckpointError(
            f"{path} does not fit the methods of the config: {'; '.join(shapes)}. Give the config "
            "of its run"
        )
    with torch.no_grad():
        model.kd.load_state_dict({k: v for k, v in given.items() if k in ours}, strict=False)
    parameters = [name for name, _ in model.kd.named_parameters()]
    return {name.partition(".")[0] for name in parameters if name not in given}
