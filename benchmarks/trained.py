"""A training of a config with overrides that is run, gone on with, or used again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dense_kd import get_config
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.fingerprint import environment, result_settings
from dense_kd.engine.processes import Run, train_together


def trained(title: str, folder: Path, config: str, overrides: Sequence[str], threads: int) -> Run:
    """A training that is finished, in a process of its own.

    Args:
        title: for messages.
        folder: its output_dir; what is finished there by the same settings is used again.
        config: of the package.
        overrides: ``path.key=value`` each.
        threads: of the training.
    """
    cfg = apply_overrides(get_config(config), list(overrides))
    run = Run(
        title=title,
        folder=folder,
        command=[
            *("-m", "dense_kd", "train", config, *overrides),
            *(f"train.output_dir={folder.absolute()}", "--progress", "lines"),
        ],
        iterations=cfg.train.max_iter,
        settings=result_settings(cfg),
        environment=environment(threads),
    )
    train_together([run])
    return run
