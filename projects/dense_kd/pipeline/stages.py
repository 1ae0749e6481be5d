"""The trainings of a distillation, as processes of ``dense-kd train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ..checkpoint import FINAL_CHECKPOINT
from ..checkpoint.digests import weights_digest
from ..engine import load_config
from ..engine.fingerprint import cores, environment, result_settings
from ..engine.processes import Run
from .errors import PipelineError
from .plan import DetectorPlan, Plan
from .records import data_digest

__all__ = ["fetch_weights", "make_run"]


def make_run(plan: Plan, name: str, config: Path) -> Run:
    """The training of one of ``plan.stages``; what it starts from has to be there.

    Args:
        plan: of the distillation.
        name: the stage.
        config: its file, see :mod:`.config_files`.
    """
    cfg = load_config(str(config))
    settings = {**result_settings(cfg), "data": data_digest(plan), "weights": _weights(plan, name)}
    devices = plan.devices
    return Run(
        title=name,
        folder=plan.output / name,
        command=["-m", "dense_kd", "train", str(config), "--num-gpus", str(devices.count)],
        iterations=cfg.train.max_iter,
        settings=settings,
        environment=environment(max(1, cores() // devices.count)),
    )


def fetch_weights(detector: DetectorPlan) -> None:
    """Download what a detector starts from, if it has a public name, before anything is trained.

    Raises:
        PipelineError: it cannot be fetched; the message says what to give instead.
    """
    if "://" not in detector.weights:
        return
    try:
        PathManager.get_local_path(detector.weights)
    except Exception as error:  # whatever the transport raises
        role = detector.role
        raise PipelineError(
            f"the weights of the {role} {detector.found.name}, {detector.weights} "
            f"({detector.why}), cannot be fetched: {error}\nFetch them where there is a network "
            f"and give the file ({role}_weights=FILE, on the command line --{role}-weights FILE), "
            f"or train from random weights (from_scratch=True, --from-scratch)"
        ) from error


def _weights(plan: Plan, name: str) -> dict[str, Any]:
    """Digests of the files that a training reads."""
    files = {}
    if name == "distilled":
        teacher, trained = plan.teacher, plan.output / "teacher" / FINAL_CHECKPOINT
        files["teacher"] = str(trained) if teacher.trained else teacher.weights
    files["start"] = (plan.teacher if name == "teacher" else plan.student).weights
    return {part: weights_digest(file) for part, file in files.items()}
