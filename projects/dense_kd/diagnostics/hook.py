"""Why the distillation of a run helps or not, measured now and then without changing the run."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn

from ..compat import full_precision, wait_for
from ..methods import KDMethod, Step
from ..options import check_counts
from ..outputs import DensePass
from .agreement import agreement
from .conflicts import conflicts
from .errors import DiagnosticsError
from .gradients import gradient_shares, loss_groups, norms_at_places, touched_features
from .locations import compared_classes
from .methods_of_pair import distiller_of

__all__ = ["CONFLICT_THRESHOLD", "LONG", "SHARES", "Diagnostics"]

CONFLICT_THRESHOLD = 0.5
"""The difference above which teacher and label are in conflict in ``diag/conflicts_per_*``."""

LONG = 20
"""Measurements over whose mean a method's share is judged."""

SHARES = (0.01, 0.99)
"""Below and above which the share of a method is warned of."""

_PYRAMID = ""

logger = logging.getLogger(__name__)


class Diagnostics(HookBase):
    """Scalars of one pass of the training every ``period`` iterations, in the trainer's storage.

    - ``diag/share_<method>`` and ``diag/share_detection``: shares of the gradient at the student's
      pyramid, see :func:`.gradients.gradient_shares`; warm-ups count, as the losses have them,
    - ``diag/tower_share_<method>`` of a method that reads tower features: its share of the gradient
      of all losses at those features, together where there are several, see
      :func:`.gradients.touched_features`,
    - ``diag/agreement_p3``, ``diag/correlation_p3`` and so on, see :class:`.agreement.Agreement`,
    - ``diag/conflicts_per_positive`` and ``diag/conflicts_per_location``: the number of locations
      in conflict at :data:`CONFLICT_THRESHOLD`, divided by that of the positive ones, as CrossKD's
      Figure 3 does, and by that of all, see :class:`.conflicts.Conflicts`,
    - ``diag/seconds``: what measuring all of these took.

    A method that reads the pyramid touches nothing else, so its share there is all there is. So it
    is with methods that read predictions: their gradient reaches features by way of the towers,
    whose last features are of one branch, and comes together with all others at the pyramid.

    Where no detector teaches, it is the shares alone.

    What is not defined for a batch (conflicts per positive without any, gradients that are not
    finite or all 0) is left out. Of several processes each measures its own batch, and what is
    written are means over those where it is defined, as detectron2 writes losses; what conflicts
    are divided by and they are added up first. With accumulated batches it is the first of the
    iteration. Conflicts are counted in images with labels.

    Losses, gradients, weights and random generators are what they are without it. The share of the
    time that it costs is logged once. A method whose share at the pyramid, averaged over
    :data:`LONG` measurements after its warm-up, is outside of :data:`SHARES` is warned of, once,
    also where the run was resumed in between. The pyramid's share is what tells, for methods on
    towers, too: it is where all losses meet, so that shares add up to 1 and can be compared, and
    all below it, most of the student, gets no other gradient. At a tower there are only the losses
    of its branch, and one that has most of the gradient there may have little of the student's.
    """

    def __init__(self, model: nn.Module, period: int):
        """
        Args:
            model: of the trainer, a Distiller or one in DDP.
            period: in iterations.

        Raises:
            DiagnosticsError: the model is no Distiller, or a method has the name of a group.
        """
        check_counts(period=period)
        self._distiller = distiller_of(model, "train.diagnostics")
        loss_groups({}, [name for name, _ in self._methods()])  # checks their names
        self._period = period
        self._handles: list[Any] = []
        self._passes: tuple[DensePass, DensePass | None, Step] | None = None
        self._measured: dict[str, float] | None = None
        self._counts = (0, 0, 0)
        self._seconds = 0.0
        self._begun = 0.0
        self._costs: list[tuple[float, float]] = []  # (seconds, seconds of the step without)
        self._recent = {name: deque[float](maxlen=LONG) for name, _ in self._methods()}
        self._warned: set[str] = set()
        self._comparable = True

    def before_step(self) -> None:
        """Let the next pass be measured, if it is one of those."""
        self._begun = time.perf_counter()
        if (self.trainer.iter + 1) % self._period == 0:
            self._distiller.kd.looked_at = True
            self._handles = [
                self._distiller.kd.register_forward_hook(self._keep_passes),
                self._distiller.register_forward_hook(self._measure),
            ]

    def after_step(self) -> None:
        """Write what was measured."""
        self._remove_handles()
        if self._measured is None:
            return
        step, begin = time.perf_counter() - self._begun - self._seconds, time.perf_counter()
        values = _over_processes(self._measured, self._counts)
        self._measured = None
        if not comm.is_main_process():
            return
        for name, value in values.items():
            self.trainer.storage.put_scalar(f"diag/{name}", value, smoothing_hint=False)
        self._warn(values)
        self._seconds += time.perf_counter() - begin
        self.trainer.storage.put_scalar("diag/seconds", self._seconds, smoothing_hint=False)
        if len(self._costs) < 2:  # the first is slower than those to come
            self._costs.append((self._seconds, step))
            if len(self._costs) == 2:
                self._log_cost()

    def after_train(self) -> None:
        """Log what it cost, if nothing was logged yet."""
        self._remove_handles()
        if len(self._costs) == 1:
            self._log_cost()

    def state_dict(self) -> dict[str, Any]:
        """What warnings go by, for the checkpoint; it is of the main process."""
        recent = {name: [*shares] for name, shares in self._recent.items()}
        return {"recent": recent, "warned": sorted(self._warned)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; methods that this run does not have are left out."""
        for name, shares in self._recent.items():
            shares.extend(state_dict["recent"].get(name, ()))
        self._warned = {*state_dict["warned"]} & {*self._recent}

    def _methods(self) -> list[tuple[str, KDMethod]]:
        return [*self._distiller.kd.named_methods()]

    def _keep_passes(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.is_grad_enabled():  # otherwise counts are measured, see engine/normalizing.py
            student, teacher, step = args
            self._passes = student, teacher, step

    def _measure(self, module: nn.Module, args: Any, losses: Mapping[str, Tensor]) -> None:
        if not torch.is_grad_enabled():
            return
        self._remove_handles()
        passes, self._passes = self._passes, None
        if passes is None:
            return
        student, teacher, step = passes
        device = student.logits[0].device
        begin = _now(device)
        with full_precision(device):
            self._measured = self._shares(losses, student)
            with torch.no_grad():
                self._measured.update(self._comparison(student, teacher, step))
        self._seconds = _now(device) - begin

    def _shares(self, losses: Mapping[str, Tensor], student: DensePass) -> dict[str, float]:
        groups = loss_groups(losses, [name for name, _ in self._methods()])
        scaler = getattr(self.trainer, "grad_scaler", None)
        scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
        places = {_PYRAMID: student.features}
        for name, method in self._methods():
            taps = method.needs.taps_of_student
            if taps and name in groups:
                of_taps = touched_features(student, taps)
                places[f"tower_share_{name}"] = [level for levels in of_taps for level in levels]
        norms = norms_at_places(groups, places, scale)
        shares = gradient_shares(norms.pop(_PYRAMID))
        found = {f"share_{name}": share for name, share in shares.items()}
        for key, at_towers in norms.items():
            found[key] = gradient_shares(at_towers)[key.removeprefix("tower_share_")]
        return found

    def _comparison(
        self, student: DensePass, teacher: DensePass | None, step: Step
    ) -> dict[str, float]:
        self._counts = (0, 0, 0)
        if teacher is None or not self._comparable:
            return {}
        try:
            classes = compared_classes(self._distiller)
            if not set(student.strides) & set(teacher.strides):
                raise DiagnosticsError(
                    f"the student has the level strides {student.strides}, the teacher "
                    f"{teacher.strides}"
                )
        except DiagnosticsError as error:
            self._comparable = False
            logger.warning(f"Agreement and conflicts are not measured: {error}")
            return {}
        found = {}
        for level, each in agreement(student, teacher, classes).items():
            found[f"agreement_{level}"] = each.overlap
            found[f"correlation_{level}"] = each.correlation
        labelled = step.labelled
        if labelled is None or labelled:  # with what the teacher says itself it has no conflict
            images = slice(None) if labelled is None else labelled
            counted = conflicts(
                student.of_images(images),
                teacher.of_images(images),
                step.targets.of_images(images),
                thresholds=[CONFLICT_THRESHOLD],
                classes=classes,
            )
            self._counts = (counted.above[0], counted.positives, counted.locations)
        return found

    def _warn(self, values: Mapping[str, float]) -> None:
        balance = self._distiller.kd.balance
        for name, method in self._methods():
            share = values.get(f"share_{name}")
            if share is None or not method.teaches(self.trainer.iter):
                continue
            if self.trainer.iter - method.first_iter < method.warmup_iters:
                continue
            recent = self._recent[name]
            recent.append(share)
            mean = sum(recent) / len(recent)
            if len(recent) < LONG or name in self._warned or SHARES[0] <= mean <= SHARES[1]:
                continue
            self._warned.add(name)
            few = mean < SHARES[0]
            logger.warning(
                f"method {name!r} ({type(method).__name__}) has had {100 * mean:.2g} % of the "
                f"gradient at the student's pyramid over the last {LONG} measurements, "
                + (
                    "so it hardly teaches it anything: raise its weights"
                    if few
                    else "so the student hardly learns anything else: lower its weights"
                )
                + f" (model.methods.{name if balance is None else 'balance.target'}), if that is "
                "not meant"
            )

    def _log_cost(self) -> None:
        seconds, step = self._costs[-1]
        logger.info(
            f"Diagnostics took {seconds:.3f} s, {100 * seconds / step:.0f} % of a step; every "
            f"{self._period} iterations that is {100 * seconds / step / self._period:.2g} % of "
            "the training"
        )

    def _remove_handles(self) -> None:
        self._distiller.kd.looked_at = False
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _over_processes(values: Mapping[str, float], counts: tuple[int, int, int]) -> dict[str, float]:
    """{name: mean over the processes}, on the main one; without what is not defined on any."""
    found = comm.gather((dict(values), counts))  # empty on the others
    if not found:
        return {}
    means = {}
    for name in dict.fromkeys(name for each, _ in found for name in each):
        known = [each[name] for each, _ in found if math.isfinite(each.get(name, math.nan))]
        if known:
            means[name] = sum(known) / len(known)
    above, positives, locations = (sum(column) for column in zip(*(each for _, each in found)))
    for what, number in (("positive", positives), ("location", locations)):
        if number:
            means[f"conflicts_per_{what}"] = above / number
    return means


def _now(device: torch.device) -> float:
    wait_for(device)
    return time.perf_counter()
