"""Distillations to be looked at: their config, and a checkpoint of their run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from omegaconf import DictConfig

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
from .checks import RunError, load_config
from .checks.tree import is_call_of, select


def distillation_config(
    config: str, overrides: Sequence[str], *, of_teacher: str | None = None
) -> DictConfig:
    """A config whose model is a Distiller.

    Args:
        config: its name or path.
        overrides: of it.
        of_teacher: what is wanted of the detector that is the teacher, in words, in the plural;
            None: there need not be one.

    Raises:
        RunError: it cannot be loaded, or its model is another one.
    """
    cfg = load_config(config, overrides)
    if not is_call_of(cfg.get("model"), Distiller):
        raise RunError(
            [
                f"{config} is of no distillation; expected a config whose model is a Distiller, "
                "with student, teacher and methods, as quickstart/distill"
            ]
        )
    if of_teacher is not None and select(cfg, "model.teacher") is None:
        raise RunError(
            [
                f"{config}: {of_teacher} are of a detector that is the teacher, and model.teacher "
                "is null; give a config of a distillation with one"
            ]
        )
    return cfg


def load_distilled(model: Distiller, path: str) -> set[str]:
    """Load the student strictly, and the parameters of those methods that the file has.

    Whatever the file is of, the student has its weights then, and does not inherit any.

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
    if model.init_student:
        model.kd.student_initialized.fill_(True)
    parameters = [name for name, _ in model.kd.named_parameters()]
    return {name.partition(".")[0] for name in parameters if name not in given}
