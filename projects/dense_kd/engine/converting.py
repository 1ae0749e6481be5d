"""What ``dense-kd convert`` does: a checkpoint of another project, checked against a config."""

from __future__ import annotations

import os

from detectron2.config import instantiate
from torch import nn

from ..checkpoint import CheckpointError, Conversion, convert_file, published_file
from ..checkpoint.description import Description
from ..checkpoint.places import check_file
from .checks import load_config
from .checks.data import detector_of
from .checks.tree import select
from .state.described_run import describe_run


def convert_checkpoint(
    source: str,
    target: str,
    *,
    part: str | None = None,
    background: bool = True,
    config: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write the weights of ``source`` under our keys to ``target``.

    Args:
        source: a file, a URL, or a name as ``mmdet://NAME``.
        target: the file to write, .pth.
        part: of a distiller's file, "student" or "teacher".
        background: whether the classes of a detector of torchvision begin with the background.
        config: of the model that the weights have to fit exactly; of a distiller it is the
            teacher, or with ``part="student"`` the student. Its description is written, too.
        overwrite: replace ``target``, if it is there.

    Returns:
        What was found in it.

    Raises:
        CheckpointError: the file cannot be read, its weights do not fit, or ``target`` is there.
        SaveError: it cannot be written.
        RunError: the config cannot be loaded.
    """
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise CheckpointError(f"the folder of OUT does not exist: {folder}")
    check_file(target)
    if os.path.realpath(source) == os.path.realpath(target):
        raise CheckpointError(f"IN and OUT are the same file: {target}")
    if os.path.lexists(target) and not overwrite:
        raise CheckpointError(
            f"{target} is there already; give another OUT, or --overwrite (overwrite=True) to "
            "replace it"
        )
    model, description = _model_of(config, part) if config else (None, None)
    return convert_file(
        published_file(source),
        target,
        part,
        background=background,
        model=model,
        description=description,
    )


def describe(conversion: Conversion, target: str) -> str:
    """What was written, with a table of the tensors.

    Args:
        conversion: of :func:`convert_checkpoint`.
        target: its file.
    """
    if conversion.project == "dense_kd":
        what = "the keys are ours already, nothing was renamed"
    else:
        what = f"{conversion.project}'s {conversion.model or 'no known head'}"
    return f"{target}: {what}\n{conversion.table()}"


def _model_of(config: str, part: str | None) -> tuple[nn.Module, Description]:
    cfg = load_config(config)
    if cfg.get("model") is None:
        raise CheckpointError(f"{config} has no 'model', expected a config of a detector")
    distils = "teacher" in cfg.model and "student" in cfg.model
    mode = "evaluate_teacher" if distils and part != "student" else "evaluate"
    if mode == "evaluate_teacher" and select(cfg, "model.teacher") is None:
        raise CheckpointError(
            f"{config}: weights are compared with those of the teacher, and model.teacher is null; "
            "give part='student' (--part student) for those of the student, or another config"
        )
    return instantiate(detector_of(cfg, mode)[1]), describe_run(cfg, mode)
