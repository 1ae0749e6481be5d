"""The files of the networks that teach, by which a step knows them again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig

from ...checkpoint import CheckpointError
from ...checkpoint.digests import weights_digest
from ...feature_teacher import FeatureTeacher
from ...teacher import Teacher
from ..checks.tree import calls_of, select

__all__ = ["DISTILLERS", "files_of_teachers", "put_files"]

DISTILLERS = "model.teacher"
"""The place of the teacher of a Distiller; others belong to methods."""


def files_of_teachers(cfg: DictConfig) -> dict[str, dict[str, str]]:
    """{place in the config: its file under "weights", and the "digest" of that} of all teachers.

    Args:
        cfg: of a run, with ``model``.
    """
    found = {}
    for place, teacher in calls_of(cfg.model, "model", (Teacher, FeatureTeacher)):
        weights = select(teacher, "weights")
        if isinstance(weights, str):
            found[place] = {
                "weights": os.path.abspath(weights) if os.path.isfile(weights) else weights,
                "digest": weights_digest(weights),
            }
    return found


def put_files(model: Any, files: Mapping[str, Mapping[str, str]], given: str | None) -> None:
    """Let a model be built with the teachers of a step.

    Args:
        model: what describes it, or the ``model`` of a config, which is changed.
        files: of :func:`files_of_teachers`.
        given: instead of the file of a Distiller's teacher.

    Raises:
        CheckpointError: a file is another one now, or there is no such teacher in the model.
    """
    for place, file in files.items():
        node = _at(model, place)
        if node is None:
            raise CheckpointError(
                f"the step is one with a teacher ({place}, {file['weights']}), and the config has "
                "none there; give the config of its run"
            )
        asked = given if place == DISTILLERS and given else None
        candidates = [asked] if asked else [file["weights"], node.get("weights")]
        names = [name for name in candidates if isinstance(name, str)]
        right = [name for name in names if weights_digest(name) == file["digest"]]
        if not right:
            way = "(--teacher)" if place == DISTILLERS else f"(--config, with {place}.weights)"
            raise CheckpointError(
                f"{' and '.join(dict.fromkeys(names))}: is not the teacher that the step was run "
                f"with at {place}, or is not there; give its file {way}"
            )
        node["weights"] = right[0]


def _at(model: Any, place: str) -> Any:
    for key in place.split(".")[1:]:
        if isinstance(model, (list, ListConfig)) and key.isdigit() and int(key) < len(model):
            model = model[int(key)]
        elif isinstance(model, (dict, DictConfig)) and key in model:
            model = model[key]
        else:
            return None
    return model if isinstance(model, (dict, DictConfig)) else None
