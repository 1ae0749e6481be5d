"""A teacher whose pass is not finite stops the run, whatever a method makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..outputs import DensePass


class TeacherWatch:
    """Looks at each pass of the teacher, and raises if there was a value that is not finite.

    Comparisons drop NaN, so a method that ranks or selects predictions may give a finite loss where
    the teacher gives none. Every loss of the step becomes NaN then, which trainers stop at, and its
    backward pass, or else the next step, raises an error that says why.

    Nothing waits for a GPU: the numbers are copied behind the teacher's pass and read when they are
    there, which they are as soon as a method has waited for a mask. A look takes a reduction of
    each map and a number of bytes.
    """

    def __init__(self) -> None:
        self._looks: list[_Look] = []

    @torch.compiler.disable
    def look(self, dense: DensePass) -> Tensor:
        """0 as a scalar, or NaN if a value of the teacher's pass is not finite.

        Raises:
            FloatingPointError: an earlier pass was not finite.
        """
        self.check()
        maps = {
            "features": dense.features,
            "class logits": dense.logits,
            "box codes": dense.deltas,
            f"{dense.quality_kind} logits": dense.quality or [],
            "distributions": dense.distribution or [],
            **{f"tower features {tap}": levels for tap, levels in dense.taps.items()},
        }
        names, extremes = [], []
        for name, levels in maps.items():
            for level in levels:
                if level.numel() > 0:
                    names += [name, name]
                    extremes += [extreme.float() for extreme in level.detach().aminmax()]
        numbers = torch.stack(extremes) * 0  # NaN where infinite
        self._looks.append(_Look.at(numbers, names))
        return numbers.sum()

    @torch.compiler.disable
    def guard(self, losses: dict[str, Tensor]) -> None:
        """Let the backward pass of any of ``losses`` raise what :meth:`check` raises."""
        for loss in losses.values():
            if loss.requires_grad:
                loss.register_hook(self._check_in_backward)

    def check(self) -> None:
        """Raise FloatingPointError if a pass is known not to have been finite."""
        looks, self._looks = self._looks, []
        for look in looks:
            if not look.is_there():
                self._looks.append(look)
                continue
            broken = look.not_finite()
            if broken:
                raise FloatingPointError(
                    "the teacher's pass over a batch is not finite: there is NaN or infinity in "
                    f"its {', '.join(broken)}. Look at its weights, at its pixel_mean and "
                    "pixel_std, and at the precision that it runs in: float16 ends at 65504, "
                    "precision='float32' or 'bfloat16' of Teacher does not"
                )

    def _check_in_backward(self, gradient: Tensor) -> None:
        self.check()

    def __reduce__(self) -> tuple:  # a copy of a model has looked at nothing
        return type(self), ()


@dataclass
class _Look:
    """Numbers on their way to the CPU: (E,), NaN where something was not finite.

    Attributes:
        numbers: of the extremes of E maps.
        names: E names of what each is in.
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
        found = (name for name, x in zip(self.names, self.numbers.tolist()) if x != x)
        return list(dict.fromkeys(found))
