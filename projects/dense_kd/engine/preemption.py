"""A training that is told to stop finishes its iteration, saves and ends, all processes at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..errors import EXIT_PREEMPTED, Preempted
from .stopping import Stop

__all__ = ["InterruptibleEvaluator", "LeftEvaluation", "Preemption"]

logger = logging.getLogger("dense_kd")


class Preemption(HookBase):
    """Ends a training after the iteration in which any process was told to.

    It stands after the hook that saves periodically and before those that evaluate: whether to
    stop is exchanged with the look for numbers that are not finite, in the step itself.
    """

    def __init__(self, stop: Stop, save: Callable[[int], str]):
        """
        Args:
            stop: of this process.
            save: called in all processes with the iteration that is done, it makes the run
                one that can be resumed from there; returns the name of the file.
        """
        self._stop = stop
        self._save = save

    def before_train(self) -> None:
        """End, if any process has been told so while the run was loaded.

        Raises:
            Preempted: in all processes.
        """
        self.trainer.wants_stop = lambda: bool(self._stop.reason)
        if any(comm.all_gather(self._stop.signalled)):
            raise self._preempted("before the first iteration: nothing was to be saved")

    def after_step(self) -> None:
        """Save and end, if the processes have agreed on it."""
        alone = comm.get_world_size() == 1  # with nobody to agree with since the step
        if self.trainer.stopping or (alone and self._stop.reason):
            self.end()

    def leaves_evaluation(self) -> bool:
        """Whether this process leaves the evaluation that it is in.

        Time that is over ends none that comes before the first iteration: each resumed run would
        begin with it again, and never come further.
        """
        has_trained = self.trainer.done > self.trainer.start_iter
        return bool(self._stop.reason if has_trained else self._stop.signalled)

    def end(self) -> NoReturn:
        """Save and end, in all processes.

        Raises:
            Preempted: always.
        """
        done = self.trainer.done
        # All wait for the first one, which writes: who starts them may kill all when one has ended.
        saved = comm.all_gather(self._save(done - 1))[0]
        raise self._preempted(
            f"with {done} of {self.trainer.max_iter} iterations done; {saved} holds them, --resume "
            f"goes on (exit code {EXIT_PREEMPTED})"
        )

    def _preempted(self, what: str) -> Preempted:
        message = f"Stopped by {self._stop.reason or 'a signal to another process'} {what}"
        logger.warning(message)
        return Preempted(message)


class LeftEvaluation(Exception):
    """An evaluation was left because a process was told to stop; raised in all of them."""


class InterruptibleEvaluator(DatasetEvaluator):
    """Another evaluator, whose evaluation is left if a process is told to stop meanwhile.

    The process that was told leaves out the rest of its images, the others learn of it when they
    have done theirs.
    """

    def __init__(self, evaluator: Any, leaves: Callable[[], bool]):
        """
        Args:
            evaluator: of detectron2's kind.
            leaves: whether this process was told to, asked for each batch.
        """
        self._evaluator = evaluator
        self._leaves = leaves

    def reset(self) -> None:
        """Begin."""
        self._evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        """Take a batch.

        Raises:
            LeftEvaluation: it was told to stop.
        """
        if self._leaves():
            self._agree()
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> Any:
        """The metrics.

        Raises:
            LeftEvaluation: any process was.
        """
        self._agree()
        return self._evaluator.evaluate()

    def _agree(self) -> None:
        """Each process comes here once in an evaluation."""
        if any(comm.all_gather(self._leaves())):
            raise LeftEvaluation
