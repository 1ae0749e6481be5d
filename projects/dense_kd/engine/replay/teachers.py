"""The networks that taught in a step, put into a model by their files."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig

from ...checkpoint import CheckpointError
from ...checkpoint.digests import weights_digest
from ..state.stored_teachers import TeacherFiles

__all__ = ["DISTILLERS", "put_files"]

DISTILLERS = "model.teacher"
"""The place of the teacher of a Distiller; others belong to methods."""


def put_files(model: Any, files: TeacherFiles, given: str | None) -> None:
    """Let a model be built with the teachers of a step.

    Args:
        model: what describes it, or the ``model`` of a config, which is changed.
        files: of :func:`dense_kd.engine.state.stored_teachers.files_of_teachers`, as the run began.
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
