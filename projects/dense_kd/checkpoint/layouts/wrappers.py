"""Where in a file the weights of a model are, and their keys without what was put around it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..errors import CheckpointError

logger = logging.getLogger(__name__)

METHOD_PREFIX = "kd."
"""Before the parameters of distillation methods in the checkpoints of a run."""

CONTAINERS = (
    "model",  # detectron2 and we
    "state_dict_ema",  # timm, which evaluates this one
    "state_dict",  # OpenMMLab, Lightning
    "model_state_dict",
    "model_state",  # pycls
    "module",  # DeepSpeed
)
"""Names of the weights in a checkpoint, the first that is there counts."""

COMPILED = "_orig_mod."
"""Of torch.compile, anywhere in a key."""

_PREFIXES = ("module.", "model.", "ema_model.", "_forward_module.")
"""Of DDP and averaged models; of Lightning, and of mmrazor in its parts; of Fabric."""

_AVERAGE_COUNTERS = ("n_averaged", "steps")
"""Beside the model in an averaged one, of torch and of mmengine."""

PARTS: dict[str, tuple[str, ...]] = {
    "student": ("student.", "architecture.", "modelStudent."),
    "teacher": ("teacher.", "distiller.teacher.", "modelTeacher."),
}
"""{model: before its keys in a distiller}: of FGD, MGD, PGD and mmdetection's semi-supervised ones,
of mmrazor 1.x and 0.x, and of Unbiased Teacher."""

_AVERAGED_TEACHER = "modelTeacher."


def is_run_state(key: str) -> bool:
    """Whether it is no weight but state of the run that wrote it, which another run does not begin
    with: its iteration, whether the student has inherited, and factors of ``Balance``."""
    name = key[len(METHOD_PREFIX) :]
    of_run = name in ("iteration", "student_initialized") or name.startswith("balance.")
    return key.startswith(METHOD_PREFIX) and of_run


def find_state(content: Any) -> Mapping[str, Any] | None:
    """The weights in the content of a file, None if there are none."""
    if not isinstance(content, Mapping):
        return None
    held = next((content[k] for k in CONTAINERS if isinstance(content.get(k), Mapping)), content)
    if not held or not all(isinstance(key, str) for key in held):
        return None
    if held is content and not all(isinstance(v, (Tensor, np.ndarray)) for v in held.values()):
        return None
    return held


def strip_wrappers(state: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """``state`` without the prefixes that all its keys have; the same object if they have none.

    Raises:
        CheckpointError: two keys differ in nothing else.
    """
    names = {key: key.replace(COMPILED, "") for key in state}
    while names:
        counters = [key for key in names if names[key] in _AVERAGE_COUNTERS]
        others = {key: name for key, name in names.items() if key not in counters}
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in others.values())), None)
        if prefix is None or not others:
            break
        names = {key: name[len(prefix) :] for key, name in others.items()}
    if len(set(names.values())) < len(names):
        doubled = [key for key, name in names.items() if key != name and name in state]
        raise CheckpointError(f"{source} holds two tensors of one name: {doubled[:5]}")
    if all(key == name for key, name in names.items()):
        return state
    return {name: state[key] for key, name in names.items()}


def select_part(state: Mapping[str, Any], part: str | None, source: str) -> Mapping[str, Any]:
    """The keys of one model; of a distiller's two models, ``part`` says which.

    Args:
        state: of a detector or a distiller.
        part: one of :data:`PARTS`. None for the checkpoint of a single detector; or of Unbiased
            Teacher, whose teacher it is then, the average of its student.
        source: named in errors.
    """
    sizes = {
        prefix: count
        for prefixes in PARTS.values()
        for prefix in prefixes
        if (count := sum(key.startswith(prefix) for key in state))
    }
    if part is None and _AVERAGED_TEACHER in sizes:
        logger.info(f"{source} is of Unbiased Teacher; its averaged model, the teacher, is read")
        return _under(_AVERAGED_TEACHER, state, source)
    if part is None:
        if sizes:
            counts = ", ".join(f"{size} keys under '{p}'" for p, size in sizes.items())
            raise CheckpointError(
                f"{source} is the checkpoint of a distiller of mmdetection or mmrazor ({counts}); "
                "take one model out of it with tools/convert_checkpoint.py --part student (or "
                "teacher)"
            )
        return state
    found = [prefix for prefix in PARTS[part] if prefix in sizes]
    if not found:
        expected = " or ".join(f"'{prefix}'" for prefix in PARTS[part])
        raise CheckpointError(
            f"{source} has no keys under {expected}, expected the checkpoint of a distiller; its "
            f"keys begin with {sorted({key.split('.')[0] for key in state})[:10]}"
        )
    return _under(found[0], state, source)


def _under(prefix: str, state: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    chosen = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    return strip_wrappers(chosen, source)


def unwrapped(model: nn.Module) -> nn.Module:
    """``model`` without DDP, DataParallel and torch.compile around it, in any order."""
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            model = model.module
            continue
        compiled = getattr(model, "_orig_mod", None)
        if not isinstance(compiled, nn.Module):
            return model
        model = compiled


def clean_state(model: nn.Module) -> dict[str, Tensor]:
    """``model.state_dict()`` as it is where no part of the model is compiled."""
    state = model.state_dict()
    if any(COMPILED in key for key in state):
        return {key.replace(COMPILED, ""): value for key, value in state.items()}
    return state


def names_in(model: nn.Module) -> dict[str, str]:
    """{key of a checkpoint: key of the model's own state dict}."""
    return {key.replace(COMPILED, ""): key for key in model.state_dict()}
