"""When a training evaluates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import hooks
from detectron2.utils import comm

from .processes import read_metrics

__all__ = ["EvaluationHook"]

logger = logging.getLogger("dense_kd")

_NO_EVALUATION = ("diag/", "teacher_cache/")


class EvaluationHook(hooks.EvalHook):
    """detectron2's, which also evaluates a run that fails in its last iteration.

    A run that is resumed where an evaluation was due, but was stopped before its end, has it first.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]], folder: str):
        """
        Args:
            period: in iterations; 0 evaluates at the end only.
            evaluate: returns {task: metrics}.
            folder: of the run, where ``metrics.json`` says what was evaluated.
        """
        super().__init__(period, evaluate)
        self._folder = Path(folder)

    def before_train(self) -> None:
        """Evaluate what the run before this one had to, and has not."""
        done = self.trainer.start_iter
        if not (0 < done < self.trainer.max_iter and self._period and done % self._period == 0):
            return
        found = comm.is_main_process() and _evaluated(self._folder, done - 1)
        if any(comm.all_gather(found)):
            return
        logger.info(f"The evaluation after {done} iterations comes first; it was not finished")
        self.trainer.storage.iter = done - 1  # under which its metrics are written
        self._do_eval()
        self.trainer.storage.iter = done

    def after_train(self) -> None:
        """Evaluate, if all iterations are done."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


def _evaluated(folder: Path, iteration: int) -> bool:
    """Whether there are metrics of an evaluation, which have a task before their name."""
    return any(
        record.get("iteration") in (iteration, iteration + 1)  # the latter of the last evaluation
        and any("/" in key and not key.startswith(_NO_EVALUATION) for key in record)
        for record in read_metrics(folder)
    )
