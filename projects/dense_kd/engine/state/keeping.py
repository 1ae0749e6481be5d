"""Which checkpoints of a run stay: the latest few, the final one, and the best."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from detectron2.engine import hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ...checkpoint import AtomicCheckpointer, read_content
from ..checks.errors import RunError, choice

__all__ = ["BestCheckpoint", "LatestCheckpoints", "best_name", "check_best"]

logger = logging.getLogger("dense_kd")

_PREFIX = "model"
_BEST = "best"  # in the file, what is the best of it


def best_name(prefix: str = _PREFIX) -> str:
    """Of the file of the best checkpoint, without its ending."""
    return f"{prefix}_best"


def check_best(metric: str, metrics: Collection[str]) -> None:
    """Look for the metric of ``train.checkpointer.best`` among those of an evaluation.

    Raises:
        RunError: there is no such metric.
    """
    if metric not in metrics:
        raise RunError(
            [
                f"train.checkpointer.best={metric}: the evaluation has no such metric; "
                f"{choice(metric, metrics)}"
            ]
        )


class LatestCheckpoints(hooks.PeriodicCheckpointer):
    """detectron2's hook that saves periodically and at the end, and keeps the latest ones.

    Those count that are in the folder, also of before the run was resumed or when it was stopped.
    The one that ``last_checkpoint`` names is never removed, nor is the final one.
    """

    def __init__(
        self,
        checkpointer: AtomicCheckpointer,
        period: int,
        max_to_keep: int | None = None,
        file_prefix: str = _PREFIX,
    ):
        """
        Args:
            checkpointer: of the run.
            period: in iterations.
            max_to_keep: number of the latest; None keeps all.
            file_prefix: of the names of the files.
        """
        super().__init__(checkpointer, period, file_prefix=file_prefix)
        self._max_to_keep = max_to_keep

    def step(self, iteration: int, **more: Any) -> None:
        """Save if it is one of those iterations, and remove what is too old.

        Args:
            iteration: from 0.
            more: what is saved besides.
        """
        super().step(iteration, **more)
        if (iteration + 1) % self.period == 0:
            self._remove_old(iteration)

    def save_now(self, iteration: int) -> str:
        """Save in an iteration that is none of those, unless it was saved; the file's path."""
        last = os.path.basename(self._last())[: -len(".pth")]
        name = f"{self.file_prefix}_{iteration:07d}"
        if last != name and not (iteration + 1 == self.max_iter and last == self._final()):
            self.checkpointer.save(name, iteration=iteration)
            self._remove_old(iteration)
        return self._last()

    def _final(self) -> str:
        return f"{self.file_prefix}_final"

    def _last(self) -> str:
        return self.checkpointer.get_checkpoint_file() if self.checkpointer.has_checkpoint() else ""

    def _remove_old(self, iteration: int) -> None:
        folder = self.checkpointer.save_dir
        if self._max_to_keep is None or not folder:
            return
        found: dict[str, int] = {}
        for name in PathManager.ls(folder):
            match = re.fullmatch(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth", name)
            if match:
                found[name] = int(match[1])
        # Those of later iterations are of what was done before, and is done again.
        order = sorted(found, key=lambda name: (found[name] <= iteration, found[name]))
        last = os.path.basename(self._last())
        for name in order[: -self._max_to_keep]:
            if name != last:
                PathManager.rm(os.path.join(folder, name))


class BestCheckpoint:
    """Keeps ``<prefix>_best.pth``, of the evaluation with the best value of a metric so far: the
    highest, or of such as miss rates the lowest.

    The file says under "best" which metric and value it has, from which a resumed run goes on, and
    ``last_checkpoint`` does not name it.
    """

    def __init__(
        self,
        checkpointer: AtomicCheckpointer,
        metric: str,
        prefix: str = _PREFIX,
        *,
        lower_is_better: bool = False,
    ):
        """
        Args:
            checkpointer: of the run.
            metric: task/name, as in ``metrics.json``.
            prefix: of the name of the file.
            lower_is_better: of the metric.
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._name = best_name(prefix)
        self._sign = -1 if lower_is_better else 1
        self.value = -self._sign * math.inf
        self._is_known = False

    def check(self, metrics: Collection[str]) -> None:
        """Look for its metric among those of an evaluation.

        Raises:
            RunError: there is no such metric.
        """
        check_best(self._metric, metrics)
        self._is_known = True

    def resume(self) -> None:
        """Go on from the value that the file has; with another metric in it, it is given up."""
        path = os.path.join(self._checkpointer.save_dir, f"{self._name}.pth")
        if not PathManager.isfile(path):
            return
        content = read_content(path)
        best = content.get(_BEST) if isinstance(content, Mapping) else None
        if isinstance(best, Mapping) and best.get("metric") == self._metric:
            self.value = float(best["value"])
        else:
            logger.warning(
                f"{path} is not the best by {self._metric}; the next evaluation replaces it"
            )

    def consider(self, results: Mapping[str, Any], trainer: Any) -> None:
        """After an evaluation: save if it is the best. All processes call this together.

        Args:
            results: {task: metrics} in the first process.
            trainer: whose state is saved.

        Raises:
            RunError: there is no such metric.
        """
        found: dict[str, float] = flatten_results_dict(dict(results))
        main = comm.is_main_process()
        if main and not self._is_known:  # detectron2 leaves those of classes out without detections
            self.check(found)
        value = float(found.get(self._metric, math.nan))
        better = self._sign * value > self._sign * self.value  # nan, of no detections, is not
        if not comm.all_gather(better)[0]:
            return
        done = trainer.done
        said = f"{self._metric} {value:.4g} after {done} iterations"
        with trainer.saving_all_processes():
            best = {"metric": self._metric, "value": value}
            self._checkpointer.save_beside(self._name, iteration=done - 1, **{_BEST: best})
        self.value = value
        logger.info(f"The best so far: {said}")
