"""The files of the networks that teach, by which a resumed run and a replay know them again."""

from __future__ import annotations

import os
from collections.abc import Mapping

from detectron2.utils import comm
from omegaconf import DictConfig

from ...checkpoint.digests import weights_digest
from ...feature_teacher import FeatureTeacher
from ...teacher import Teacher
from ..checks.tree import calls_of, select

__all__ = ["ENTRY", "StoredTeachers", "TeacherFiles", "changed_files", "files_of_teachers"]

ENTRY = "teachers"
"""Of a checkpoint."""

TeacherFiles = Mapping[str, Mapping[str, str]]
"""{place in the config: its file under "weights", and the "digest" of that}; what is no file, but a
name of public weights, has this name as both."""

_SHOWN = 12  # digits of a digest


class StoredTeachers:
    """Lets a checkpointer save {place in the config: digest of the file} of all teachers."""

    def __init__(self, files: TeacherFiles):
        """
        Args:
            files: of :func:`files_of_teachers`.
        """
        self._digests = {place: file["digest"] for place, file in files.items()}

    def state_dict(self) -> dict[str, str]:
        """The digests."""
        return self._digests

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Keep those of this run."""


def files_of_teachers(cfg: DictConfig) -> TeacherFiles:
    """Those of all teachers of a run, as they are now.

    Each file is read once: of several processes, which must all call this, by the first one.

    Args:
        cfg: of a run, with ``model``.
    """
    found = {}
    if comm.is_main_process():
        for place, teacher in calls_of(cfg.model, "model", (Teacher, FeatureTeacher)):
            weights = select(teacher, "weights")
            if isinstance(weights, str):
                found[place] = {
                    "weights": os.path.abspath(weights) if os.path.isfile(weights) else weights,
                    "digest": weights_digest(weights),
                }
    files: TeacherFiles = comm.all_gather(found)[0]
    return files


def changed_files(saved: Mapping[str, str], files: TeacherFiles) -> dict[str, str]:
    """Which teachers have another file than a checkpoint was trained with.

    Args:
        saved: of :class:`StoredTeachers`.
        files: of this run.

    Returns:
        {dotted name of the weights: what has changed}, for teachers that both have.
    """
    return {
        f"{place}.weights": (
            f"{file['weights']} is another file by now, and the teacher from here on (SHA-256 "
            f"{saved[place][:_SHOWN]} -> {file['digest'][:_SHOWN]})"
        )
        for place, file in files.items()
        if place in saved and saved[place] != file["digest"]
    }
