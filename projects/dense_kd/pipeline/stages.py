"""The trainings of a distillation, as processes of ``dense-kd train``."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ..checkpoint import FINAL_CHECKPOINT
from ..checkpoint.digests import weights_digest
from ..data.folders import write_annotations
from ..data.registration import datasets_forgotten
from ..engine import load_config
from ..engine.fingerprint import cores, environment, result_settings
from ..engine.processes import Run, check_kept
from ..engine.training_record import read_record
from .config_files import write_configs
from .errors import PipelineError
from .plan import DetectorPlan, Plan
from .records import data_digest
from .unlabelled import known_score, write_images

__all__ = ["check_trainings", "fetch_weights", "make_run", "write_data"]

# Names of what digests stand for.
_PLACES = (
    "config.train.init_checkpoint",
    "config.model.teacher.weights",
    "config.model.teacher.cache",
    "config.dataloader.evaluator.dataset_name",
    *(f"config.dataloader.{part}.dataset.names" for part in ("train", "test", "unlabelled")),
)
# A teacher is learnt from, whatever trained it. Students are compared, so the same trains them.
_OF_A_TEACHER = ("code", "versions")


def write_data(plan: Plan) -> None:
    """Write what the configs register into ``data`` of the plan's output folder."""
    folder = plan.output / "data"
    folder.mkdir(exist_ok=True)
    write_annotations(plan.data, folder)
    if plan.unlabelled:
        write_images(plan.unlabelled, folder, plan.data.classes)


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
        may_differ=(*_PLACES, *(_OF_A_TEACHER if name == "teacher" else ())),
        environment=environment(max(1, cores() // devices.count)),
    )


def check_trainings(plan: Plan) -> None:
    """Whether all that was trained in the output folder is used or gone on with; before anything is
    written or downloaded. What was distilled from a teacher that is not there is not looked at.

    Raises:
        TrainingError: something would have to be removed, see :func:`check_kept`.
    """
    begun = [name for name in plan.stages if read_record(plan.output / name)]
    if plan.options.fresh or not begun:
        return
    teacher = str(_trained_teacher(plan)) if plan.teacher.trained else plan.teacher.weights
    with tempfile.TemporaryDirectory() as folder, datasets_forgotten():
        # Of another name, since these datasets may be registered already.
        planned = dataclasses.replace(plan, output=Path(folder), name=f"{plan.name}_planned")
        write_data(planned)
        configs = write_configs(planned, known_score(teacher, plan.output))
        if plan.teacher.trained and not Path(teacher).is_file():
            configs.pop("distilled", None)
        for name in begun:
            if name in configs:
                check_kept(make_run(plan, name, configs[name]), plan.options.fresh)


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


def _trained_teacher(plan: Plan) -> Path:
    return plan.output / "teacher" / FINAL_CHECKPOINT


def _weights(plan: Plan, name: str) -> dict[str, Any]:
    """Digests of the files that a training reads."""
    files = {}
    if name == "distilled":
        trained = plan.teacher.trained
        files["teacher"] = str(_trained_teacher(plan)) if trained else plan.teacher.weights
    files["start"] = (plan.teacher if name == "teacher" else plan.student).weights
    return {part: weights_digest(file) for part, file in files.items()}
