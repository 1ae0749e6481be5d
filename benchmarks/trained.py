"""A training of a config with overrides that is run, gone on with, or used again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dense_kd import FeatureTeacher, Teacher, get_config
from dense_kd.checkpoint.digests import weights_digest
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.checks.tree import calls_of, select
from dense_kd.engine.fingerprint import environment, result_settings
from dense_kd.engine.processes import Run, train_together


def trained(title: str, folder: Path, config: str, overrides: Sequence[str], threads: int) -> Run:
    """A training that is finished, in a process of its own.

    Args:
        title: for messages.
        folder: its output_dir; what is finished there by the same settings, code and files of
            weights is used again.
        config: of the package.
        overrides: ``path.key=value`` each.
        threads: of the training.
    """
    cfg = apply_overrides(get_config(config), list(overrides))
    teachers = calls_of(cfg.model, "model", (Teacher, FeatureTeacher))
    files = {place: select(teacher, "weights") for place, teacher in teachers}
    files["train.init_checkpoint"] = select(cfg, "train.init_checkpoint")
    run = Run(
        title=title,
        folder=folder,
        command=[
            *("-m", "dense_kd", "train", config, *overrides),
            *(f"train.output_dir={folder.absolute()}", "--progress", "lines"),
        ],
        iterations=cfg.train.max_iter,
        settings={
            **result_settings(cfg),
            "weights": {place: weights_digest(file) for place, file in files.items() if file},
        },
        environment=environment(threads),
    )
    train_together([run])
    return run
