"""Weights by gradient share: what a method asks of the student, against what detection asks.

After the gradient-guided adaptive modulation of RT-DETRv4 (arXiv 2510.25257), which sets the weight
of one distillation loss by a ratio of gradient norms. To measure at the pyramid, several methods,
the probe and the bounds are ours.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from .. import compat
from ..diagnostics.gradients import FLOAT16_SCALE, gradients
from ..options import check_counts, check_parts, check_within
from ..outputs import DensePass

CHANGE = (0.1, 10.0)
"""Bounds of what a factor is multiplied with at a time."""

FACTOR = (1e-8, 1e8)
"""Bounds of a factor: a method whose gradient dies away does not make it infinite."""

SCALARS = {"share": "diag/balance_share_", "factor": "diag/balance_factor_"}
"""What is before the name of a method in the names of scalars."""

UNSEEN = 20
"""Measurements without any gradient of a method after which it is warned of."""

logger = logging.getLogger(__name__)


def adapted(factor: float, share: float, target: float, tolerance: float) -> float:
    """The factor of a method whose share is p and should be p*.

    Within the tolerance it stays. Outside, w <- w p* (1 - p) / (p (1 - p*)), which gives the share
    p* if the gradients stay what they are; w changes by :data:`CHANGE` at most.

    Args:
        factor: w, above 0.
        share: p, above 0 and at most 1.
        target: p*, between 0 and 1.
        tolerance: of the difference of p and p*.
    """
    if abs(share - target) <= tolerance:
        return factor
    change = target * (1 - share) / (share * (1 - target))
    low, high = CHANGE
    found = factor * min(max(change, low), high)
    return min(max(found, FACTOR[0]), FACTOR[1])


class Balance(nn.Module):
    """Gives the losses of each method a factor by which its gradient has a target share.

    The share of a method is p = g / (g + d), with g the L1 norm of the gradient of all its terms
    together at the student's pyramid, and d that of the student's own losses there. Other methods
    do not count, so that one more changes no factor. Norms are sums over all processes, and of
    several batches of an iteration those of the first; from one measurement to the next they are
    averaged, so a batch in which a method has no gradient (no positives) is one of norm 0. The
    average begins with the first batch in which both the method and detection have a gradient;
    before it, and where a norm is not finite, the factor stays.

    Methods on tower features are measured at the pyramid, too. At the towers, channels that a ReLU
    has made constant get most of the gradient of a loss that standardises channels (CrossKD with
    ``align``, PKD), and none of it gets through that ReLU: it was 10,000 times all the rest.

    Each of the first ``probe`` iterations is measured, of the run and of a method that begins to
    teach later, and after them every ``period``-th, by parts of a backward pass over the graph of
    the step itself, one for detection and one for each method that teaches in it. The factor
    follows :func:`adapted` at once, so that a measured step has the new one. Warm-ups of methods
    count beside it: the share is that of the losses without them.

    Factors and averages are in the checkpoints of a run, under ``kd.balance.``, and not in the
    student's. Each measurement writes to the trainer's storage ``diag/balance_share_<name>``, the
    share in this batch with the factor that it came with, and ``diag/balance_factor_<name>``, the
    factor after it.
    """

    def __init__(
        self,
        *,
        target: float | Mapping[str, float] = 0.9,
        tolerance: float = 0.02,
        smoothing: float = 0.8,
        probe: int = 50,
        period: int = 10,
    ):
        """
        Args:
            target: p*, of all methods or {name: p*} of each.
            tolerance: a share that differs by no more than this is left alone.
            smoothing: of norms: the part of the average so far in the next one; 0 goes by the last
                measurement alone.
            probe: iterations at the start of a run, and of a method that begins later, each of
                which is measured.
            period: iterations between measurements after these; 0 fixes the factors.

        Raises:
            ValueError: a value is out of its bounds, or nothing would ever be measured.
        """
        super().__init__()
        targets = dict(target) if isinstance(target, Mapping) else {"": target}
        for name, value in targets.items():
            check_within(**{f"target.{name}".rstrip("."): value})
            if not 0 <= tolerance < min(value, 1 - value):
                raise ValueError(
                    f"tolerance={tolerance!r}: expected a number of at least 0, by which a share "
                    f"of target={value!r} stays between 0 and 1"
                )
        check_parts(smoothing=smoothing)
        check_counts(at_least=0, probe=probe, period=period)
        if probe == period == 0:
            raise ValueError("probe=0 and period=0: nothing would be measured; expected one above")
        self.target = target if not isinstance(target, Mapping) else targets
        self.tolerance = tolerance
        self.smoothing = smoothing
        self.probe = probe
        self.period = period
        self._unseen: dict[str, int] = {}
        self._begins: dict[str, int] = {}
        self._iteration: int | None = None  # of the pass before
        self._asked = False

    def follow(self, begins: Mapping[str, int]) -> None:
        """Make a factor, which is 1, for each method.

        Args:
            begins: {name: the iteration in which it begins to teach} of the methods.

        Raises:
            ValueError: it has methods already, or there is a target too few or too many.
        """
        if self._unseen:
            raise ValueError("this Balance belongs to another MethodSet; give each one of its own")
        if isinstance(self.target, dict) and self.target.keys() != {*begins}:
            raise ValueError(
                f"target={self.target!r}: expected a share of each of the methods "
                f"{sorted(begins)}, or one number for all of them"
            )
        self._unseen = dict.fromkeys(begins, 0)
        self._begins = dict(begins)
        for name in begins:
            self.register_buffer(f"factor_{name}", torch.ones(()))
            # The averages of g / w and of d, and how many measurements they are of.
            self.register_buffer(f"norms_{name}", torch.zeros(3, dtype=torch.float64))

    def measure_next(self) -> None:
        """Let the next pass be measured, whatever its iteration is."""
        self._asked = True

    def target_of(self, name: str) -> float:
        """p* of a method."""
        return self.target[name] if isinstance(self.target, dict) else self.target

    def share_of(self, name: str, *, with_factor: bool = True) -> float:
        """p of a method by the averages so far; NaN before it has had a gradient.

        Args:
            name: of the method.
            with_factor: as its losses are; otherwise with the weights of its options alone.
        """
        factor, (own, detection, _) = self._state(name)
        return _share(factor * own if with_factor else own, detection)

    def factor_of(self, name: str) -> float:
        """w of a method."""
        return self._state(name)[0]

    @torch.compiler.disable  # it would be compiled anew for every iteration
    def forward(
        self,
        losses: Mapping[str, Mapping[str, Tensor]],
        detection: Mapping[str, Tensor],
        student: DensePass,
        iteration: int,
    ) -> dict[str, Tensor]:
        """{name: factor}, () each, for the losses of this pass.

        Args:
            losses: {name: {term: scalar}} of the methods that teach, without warm-ups and factors.
            detection: {name: scalar}, the student's own.
            student: the pass that both are of.
            iteration: of the run, from 0.
        """
        if torch.is_grad_enabled():  # otherwise counts are measured, see engine/normalizing.py
            first = iteration != self._iteration
            self._iteration = iteration
            if losses and (self._asked or (first and self._is_due(iteration, losses))):
                self._asked = False
                self._measure(losses, detection, student)
        return {name: getattr(self, f"factor_{name}").clone() for name in losses}

    def _is_due(self, iteration: int, names: Iterable[str]) -> bool:
        new = any(0 <= iteration - self._begins[name] < self.probe for name in names)
        return new or (self.period > 0 and iteration % self.period == 0)

    def _measure(
        self,
        losses: Mapping[str, Mapping[str, Tensor]],
        detection: Mapping[str, Tensor],
        student: DensePass,
    ) -> None:
        groups = [detection, *losses.values()]
        norms = torch.stack([_norm(group, student.features) for group in groups])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(norms)
        of_detection, *own = norms.tolist()
        for name, norm in zip(losses, own):
            self._adapt(name, norm, of_detection)

    def _adapt(self, name: str, own: float, detection: float) -> None:
        """By the norms of a batch, ``own`` without the factor."""
        if not (math.isfinite(own) and math.isfinite(detection)):
            return
        factor, (mean, mean_detection, number) = self._state(name)
        before = _share(factor * own, detection)
        if number > 0 or min(own, detection) > 0:
            number += 1
            part = max(1 / number, 1 - self.smoothing)
            mean += part * (own - mean)
            mean_detection += part * (detection - mean_detection)
        share = _share(factor * mean, mean_detection)
        if math.isfinite(share):
            factor = adapted(factor, share, self.target_of(name), self.tolerance)
        getattr(self, f"factor_{name}").fill_(factor)
        state = [mean, mean_detection, number]
        norms = getattr(self, f"norms_{name}")
        norms.copy_(torch.tensor(state, dtype=norms.dtype))
        if math.isfinite(before):
            compat.put_scalar(SCALARS["share"] + name, before, smoothing_hint=False)
        compat.put_scalar(SCALARS["factor"] + name, factor, smoothing_hint=False)
        self._warn(name, math.isfinite(share))

    def _warn(self, name: str, defined: bool) -> None:
        self._unseen[name] = 0 if defined else self._unseen[name] + 1
        if self._unseen[name] == UNSEEN:
            logger.warning(
                f"balance: no share of method {name!r} is known after {UNSEEN} measurements, as it "
                "or the student's own losses have had no gradient at the student's pyramid; its "
                "weights stay as they are"
            )

    def _state(self, name: str) -> tuple[float, list[float]]:
        return getattr(self, f"factor_{name}").item(), getattr(self, f"norms_{name}").tolist()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._iteration = None
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{n}={getattr(self, n)!r}" for n in inspect.signature(Balance).parameters)


def as_balance(given: Any) -> Balance | None:
    """A Balance, also of its options: of a command line there are these alone.

    Args:
        given: a Balance, a mapping of its options, or None.

    Raises:
        ValueError: it is neither, or an option is not known or out of its bounds.
    """
    if given is None or isinstance(given, Balance):
        return given
    known = [*inspect.signature(Balance).parameters]
    if not isinstance(given, Mapping):
        raise ValueError(
            f"balance={given!r}: expected Balance(...) or its options, as in balance.target=0.9; "
            f"there is {', '.join(known)}"
        )
    wrong = sorted(map(str, given.keys() - {*known}))
    if wrong:
        raise ValueError(f"balance has no option {', '.join(wrong)}; there is {', '.join(known)}")
    return Balance(**given)


def _norm(losses: Mapping[str, Tensor], maps: Sequence[Tensor]) -> Tensor:
    """() float64: the L1 norm of the gradient of the sum of ``losses`` at all maps together."""
    if not losses:
        return torch.zeros((), dtype=torch.float64, device=maps[0].device)
    loss = torch.stack([*losses.values()]).sum()
    scale: float | Tensor = 1.0
    if any(x.dtype == torch.float16 for x in maps):
        value = loss.detach().abs()  # so that a weight drops out of what float16 has to hold
        scale = torch.where(value > 0, FLOAT16_SCALE / value, torch.ones_like(value))
    norms = [x.abs().sum(dtype=torch.float64) for x in gradients(loss, maps, scale)]
    return torch.stack(norms).sum()


def _share(own: float, detection: float) -> float:
    """NaN where a norm is 0."""
    return own / (own + detection) if own > 0 and detection > 0 else math.nan
