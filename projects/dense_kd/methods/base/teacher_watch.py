"""A teacher whose pass is not finite stops the run, whatever a method makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from ...outputs import DensePass


class TeacherWatch:
    """Looks at each pass of the teacher, and raises if there was a value that is not finite.

    Comparisons drop NaN, so a method that ranks or selects predictions may give a finite loss where
    the teacher gives none. Every loss of the step becomes NaN then, which trainers stop at, and its
    backward pass, or else the next look, raises an error that says why. Of several processes all
    raise it in a backward pass, that of the step or the next one, and none at a look: one that
    stopped alone would leave the others waiting for its gradients.

    One process does not wait for a GPU: the numbers are copied behind the teacher's pass and read
    when they are there, which they are as soon as a method has waited for a mask. Several wait for
    one number before each backward pass. A look takes a reduction of each map and a number of
    bytes.
    """

    def __init__(self) -> None:
        self._looks: list[_Look] = []
        self._broken: dict[str, None] = {}  # names of what is known not to have been finite

    @torch.compiler.disable
    def look(self, dense: DensePass, whose: str = "") -> Tensor:
        """0 as a scalar, or NaN if a value of the teacher's pass is not finite.

        Args:
            dense: the pass.
            whose: said behind what is not finite, where there are several teachers.

        Raises:
            FloatingPointError: an earlier pass was not finite, where there is one process.
        """
        if comm.get_world_size() == 1:
            self.check()
        else:
            self._read()
        maps = {f"tower features {tap}": levels for tap, levels in dense.taps.items()}
        if dense.has_features:
            maps |= {"features": dense.features}
        if dense.has_predictions:
            maps |= {
                "class logits": dense.logits,
                "box codes": dense.deltas,
                f"{dense.quality_kind} logits": dense.quality or [],
                "distributions": dense.distribution or [],
            }
        named = [(name, x) for name, levels in maps.items() for x in levels if x.numel() > 0]
        names = [name + whose for name, _ in named]
        if not named:  # no method reads it
            return dense.priors[0].new_zeros(())
        numbers = _extremes([level.detach() for _, level in named]) * 0  # NaN where infinite
        self._looks.append(_Look.at(numbers, names))
        return numbers.sum()

    @torch.compiler.disable
    def guard(self, losses: dict[str, Tensor], zero_or_nan: Tensor) -> None:
        """Let the backward pass of any of ``losses`` raise what :meth:`check` raises.

        Args:
            losses: of the step.
            zero_or_nan: what :meth:`look` gave.
        """
        open_question = [zero_or_nan]  # the first loss of a backward pass asks for all

        def check_in_backward(gradient: Tensor) -> None:
            if open_question:
                self._check_everywhere(open_question.pop())

        for loss in losses.values():
            if loss.requires_grad:
                loss.register_hook(check_in_backward)

    def check(self) -> None:
        """Raise FloatingPointError if a pass is known not to have been finite."""
        problem = self._problem()
        if problem:
            raise FloatingPointError(problem)

    def _check_everywhere(self, zero_or_nan: Tensor) -> None:
        if comm.get_world_size() == 1:
            self.check()
            return
        self._read()
        broken = (zero_or_nan.isnan() | bool(self._broken)).float()
        torch.distributed.all_reduce(broken)
        if broken.item() > 0:
            problems = enumerate(comm.all_gather(self._problem()))
            raise FloatingPointError("\n".join(f"process {r}: {p}" for r, p in problems if p))

    def _problem(self) -> str:
        """What is wrong with the passes that are known by now, which are forgotten; or ""."""
        self._read()
        broken, self._broken = self._broken, {}
        if not broken:
            return ""
        return (
            "the teacher's pass over a batch is not finite: there is NaN or infinity in its "
            f"{', '.join(broken)}. Look at its weights, at its pixel_mean and "
            "pixel_std, and at the precision that it runs in: float16 ends at 65504, "
            "precision='float32' or 'bfloat16' of Teacher does not"
        )

    def _read(self) -> None:
        """The numbers that are there by now; what was finite is forgotten."""
        looks, self._looks = self._looks, []
        for look in looks:
            if look.is_there():
                self._broken.update(dict.fromkeys(look.not_finite()))
            else:
                self._looks.append(look)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy of a model has looked at nothing
        return type(self), ()


@dataclass
class _Look:
    """Numbers on their way to the CPU: (E, n), NaN where something was not finite.

    Attributes:
        numbers: of the extremes of E maps.
        names: E names of what each map is of.
        copied: None if the copy is not from a GPU of CUDA, and ends before it is read.
    """

    numbers: Tensor
    names: list[str]
    copied: torch.cuda.Event | None

    @classmethod
    def at(cls, numbers: Tensor, names: list[str]) -> _Look:
        if numbers.device.type != "cuda":
            return cls(numbers, names, None)
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(numbers.device))
        return cls(host, names, copied)

    def is_there(self) -> bool:
        return self.copied is None or self.copied.query()

    def not_finite(self) -> list[str]:
        """The names, each once."""
        broken = self.numbers.isnan().any(dim=1).tolist()
        return list(dict.fromkeys(name for name, is_broken in zip(self.names, broken) if is_broken))


def _extremes(maps: list[Tensor]) -> Tensor:
    """(E, n) of E maps: numbers of each that are finite if all of its are."""
    if maps[0].device.type == "cpu":
        extremes = [extreme for level in maps for extreme in level.aminmax()]
    else:  # in one kernel, which the CPU takes ten times as long for
        extremes = [*torch._foreach_norm(maps, torch.inf)]
    return torch.stack(extremes).view(len(maps), -1)
