"""A step whose losses or gradients are not finite stops the run before it reaches the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..checkpoint.errors import listed

SMALLEST_SCALE = 2.0**-14
"""Of gradients in float16, its smallest normal number: what overflows nevertheless, or is NaN,
does so in float32, too."""

_DISTILLED = "kd_"  # before the terms of methods, see MethodSet


@dataclasses.dataclass
class StepNumbers:
    """What a step has computed, before the optimizer goes by it.

    Attributes:
        iteration: of the step.
        model: with its gradients, unscaled and not yet clipped.
        losses: {term: scalar}, means over accumulated batches.
        norm: of all gradients (scalar).
        images: their file names, as far as the batches have them.
        stop: whether this process is to stop after the step.
    """

    iteration: int
    model: nn.Module
    losses: Mapping[str, Tensor]
    norm: Tensor
    images: list[str]
    stop: bool = False

    def check(self, grad_scaler: Any) -> tuple[dict[str, float], float, bool]:
        """The losses, the norm, and whether any process is to stop, read from the device at once.

        Args:
            grad_scaler: if enabled, it leaves out the steps whose gradients are not finite, as
                float16 has some; they are an error when even :data:`SMALLEST_SCALE` does not help.

        Raises:
            NotFiniteError: one of them is not finite; on all processes, if on any.
        """
        scaled = grad_scaler.is_enabled()
        scalars = [value.float().reshape(()) for value in (*self.losses.values(), self.norm)]
        values = torch.stack([scalar.to(scalars[0].device) for scalar in scalars])  # (terms + 1,)
        num_bad = (~torch.isfinite(values[:-1] if scaled else values)).sum()
        counts = num_bad[None]
        if comm.get_world_size() > 1:  # one exchange for both questions
            counts = torch.stack([num_bad, torch.full_like(num_bad, self.stop)])
            torch.distributed.all_reduce(counts)
        numbers = torch.cat([values, counts.to(values)]).tolist()
        *terms, norm = numbers[: len(values)]
        num_bad, *stops = numbers[len(values) :]
        losses = dict(zip(self.losses, terms))
        if num_bad:
            bad_losses = not all(map(math.isfinite, losses.values()))
            raise _of_all_processes(self._report(losses, norm), bad_losses)
        if not math.isfinite(norm) and grad_scaler.get_scale() < SMALLEST_SCALE:
            scale = grad_scaler.get_scale()
            raise NotFiniteError(
                f"{self._report(losses, norm)}\nThe scale of the gradients has come down to "
                f"{scale:.3g}, so the range of float16 is not the cause"
            )
        return losses, norm, self.stop or any(stops)

    def _report(self, losses: dict[str, float], norm: float) -> str:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        found = [f"{name}={losses[name]}" for name in bad]
        found += [] if math.isfinite(norm) else [f"norm of the gradients={norm}"]
        lines = [
            f"stopped before the step of iteration {self.iteration}: not finite are "
            f"{', '.join(found) or 'numbers of another process'}",
            "  losses: " + ", ".join(f"{name}={value:.6g}" for name, value in losses.items()),
            *self._describe_gradients(),
            *self._describe_weights(),
        ]
        if self.images:
            lines.append("  images: " + ", ".join(listed(self.images)))
        if bad and all(name.startswith(_DISTILLED) for name in bad):
            lines.append(
                "Only terms of the distillation are not finite: look at the teacher "
                "(--eval-teacher) and at the options of these methods."
            )
        else:
            lines.append(
                "The weights are those of the iteration before. Look at these images and their "
                "boxes, or train with a lower learning rate, a longer warm-up or train.clip_grad."
            )
        return "\n".join(lines)

    def _describe_gradients(self) -> list[str]:
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        if bad:
            return [
                f"  gradients not finite of {len(bad)} of {len(gradients)} parameters:",
                *(f"    {name}" for name in listed(bad)),
            ]
        if not gradients:
            return []
        sizes = {name: gradient.abs().max().item() for name, gradient in gradients.items()}
        largest = max(sizes, key=sizes.__getitem__)
        return [f"  gradients: all finite, the largest is {sizes[largest]:.3g}, of {largest}"]

    def _describe_weights(self) -> list[str]:
        weights = dict(self.model.named_parameters())
        bad = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
        if not bad:
            return []
        return [
            f"  not finite before this step already, {len(bad)} of {len(weights)} parameters:",
            *(f"    {name}" for name in listed(bad)),
        ]


def file_names(batch: Any) -> list[str]:
    """Of the images of a batch, as far as it has them."""
    images = batch if isinstance(batch, (list, tuple)) else ()
    return [str(x["file_name"]) for x in images if isinstance(x, Mapping) and "file_name" in x]


class NotFiniteError(FloatingPointError):
    """Losses or gradients of a step are not finite.

    Attributes:
        is_of_this_process: whether its images may be the cause. Losses that are not finite tell
            so; gradients are of all processes by then.
    """

    is_of_this_process = True


def _of_all_processes(report: str, bad_losses: bool) -> NotFiniteError:
    gathered = comm.all_gather((report, bad_losses))
    reports, bad = zip(*gathered)
    if len(reports) > 1:
        reports = tuple(f"process {rank}: {report}" for rank, report in enumerate(reports))
    error = NotFiniteError("\n".join(reports))
    error.is_of_this_process = bad_losses or not any(bad)
    return error
