"""What each part of the loss asks of the student's feature maps.

CrossKD (CVPR 2024), Figure 5, has such maps for feature imitation and for CrossKD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..outputs import DensePass, Tap
from .errors import DiagnosticsError

__all__ = [
    "DETECTION",
    "FLOAT16_SCALE",
    "gradient_maps",
    "gradient_norms",
    "gradient_shares",
    "gradients",
    "loss_groups",
    "norms_at_places",
    "touched_features",
]

DETECTION = "detection"
"""The group of the student's own losses."""

FLOAT16_SCALE = 1024.0
"""Of losses whose gradients are asked for at maps in float16, where no gradient scaler has one."""


def loss_groups(losses: Mapping[str, Tensor], methods: Iterable[str]) -> dict[str, Tensor]:
    """{"detection": sum of the student's own losses, method: sum of its terms}.

    Args:
        losses: {loss name: scalar} of a training step of a Distiller.
        methods: names of its MethodSet; of names that begin alike, a term ``kd_<name>_<term>``
            belongs to the longest.

    Raises:
        DiagnosticsError: a term belongs to none of them, or a method is named as the group of the
            student's own losses.
    """
    names = sorted(methods, key=len, reverse=True)
    if DETECTION in names:
        raise DiagnosticsError(
            f"a method is named {DETECTION!r}, as the group of the student's own losses is; give "
            "it another name in the MethodSet"
        )
    terms: dict[str, list[Tensor]] = {DETECTION: [], **{name: [] for name in reversed(names)}}
    for key, loss in losses.items():
        group = DETECTION
        if key.startswith("kd_"):
            group = next((name for name in names if key.startswith(f"kd_{name}_")), "")
        if not group:
            raise DiagnosticsError(
                f"the loss {key!r} is of none of the methods {sorted(names)}; expected kd_<name>_"
                "<term> with one of these names"
            )
        terms[group].append(loss)
    return {group: torch.stack(own).sum() for group, own in terms.items() if own}


def touched_features(student: DensePass, taps: Sequence[Tap]) -> list[list[Tensor]]:
    """The features that a loss acts on, as in CrossKD, Figure 5.

    Args:
        student: its pass.
        taps: that the method of the loss reads (``Needs.taps``); () of the detection losses.

    Returns:
        L x (N, C, Hl, Wl) for each tap; without any, of the pyramid alone, by way of which all
        other losses act on the detector, those of predictions, too.
    """
    return [student.taps[tap] for tap in taps] or [student.features]


def gradients(loss: Tensor, maps: Sequence[Tensor], scale: float | Tensor = 1.0) -> list[Tensor]:
    """The gradient of ``loss`` at each of ``maps``, float32; 0 where it does not depend on one.

    The graph is kept, and no ``.grad`` is touched, so the backward pass of the step gives what it
    would have given. What reaches a map by way of another is part of its gradient: of p5 that of
    p6, if p6 is computed from it.

    Args:
        loss: scalar.
        maps: tensors of its graph; those that require no gradient get 0.
        scale: what the loss is multiplied with and the gradients are divided by, so that those of
            maps in float16 are not below its smallest number.
    """
    found: list[Tensor | None] = [None] * len(maps)
    asked = [index for index, tensor in enumerate(maps) if tensor.requires_grad]
    if loss.requires_grad and asked:
        values = torch.autograd.grad(
            loss * scale, [maps[index] for index in asked], retain_graph=True, allow_unused=True
        )
        for index, value in zip(asked, values):
            found[index] = value
    return [
        torch.zeros_like(tensor, dtype=torch.float32) if value is None else value.float() / scale
        for tensor, value in zip(maps, found)
    ]


def gradient_norms(
    losses: Mapping[str, Tensor], maps: Sequence[Tensor], scale: float = 1.0
) -> dict[str, float]:
    """{name: g}, g the root of the sum of squares of the loss's gradient at all maps together.

    Args:
        losses: {name: scalar}.
        maps, scale: see :func:`gradients`.
    """
    return norms_at_places(losses, {"": maps}, scale)[""]


def norms_at_places(
    losses: Mapping[str, Tensor], places: Mapping[str, Sequence[Tensor]], scale: float = 1.0
) -> dict[str, dict[str, float]]:
    """{place: :func:`gradient_norms` at its maps}, by one backward pass for each loss.

    Args:
        losses: {name: scalar}.
        places: {place: maps}; a map may be of several places.
        scale: see :func:`gradients`.
    """
    maps = {id(tensor): tensor for each in places.values() for tensor in each}
    squares = []
    for loss in losses.values():
        found = zip(maps, gradients(loss, [*maps.values()], scale))
        of_map = {key: gradient.square().sum() for key, gradient in found}
        for each in places.values():
            levels = [of_map[id(tensor)] for tensor in each]
            none = torch.zeros(()).double()
            squares.append(torch.stack(levels).double().sum() if levels else none)
    # Read from the device at once.
    values = iter(torch.stack(squares).sqrt().tolist() if squares else [])
    norms: dict[str, dict[str, float]] = {place: {} for place in places}
    for name in losses:
        for place in places:
            norms[place][name] = next(values)
    return norms


def gradient_shares(norms: Mapping[str, float]) -> dict[str, float]:
    """The share of each norm in their sum.

    With the gradients dL_m / dF_l of the losses m at the levels l,

        share_m = g_m / sum_n g_n,    g_m = sqrt(sum_l |dL_m / dF_l|^2)

    NaN for all where that is not defined: every norm is 0, or one is not finite.

    Args:
        norms: {name: g}, of :func:`gradient_norms`.
    """
    total = sum(norms.values())
    defined = total > 0 and math.isfinite(total)
    return {name: norm / total if defined else math.nan for name, norm in norms.items()}


def gradient_maps(
    losses: Mapping[str, Tensor], maps: Sequence[Tensor], scale: float = 1.0
) -> dict[str, list[Tensor]]:
    """{name: L x (N, Hl, Wl)}, at each cell the norm of the loss's gradient over the channels.

    Args:
        losses: {name: scalar}, as of :func:`loss_groups`.
        maps: L x (N, C, Hl, Wl), such as the pyramid (``DensePass.features``), or for CrossKD the
            tower features that it acts on (``DensePass.taps``), as in CrossKD, Figure 5.
        scale: see :func:`gradients`.
    """
    return {
        name: [torch.linalg.vector_norm(g, dim=1) for g in gradients(loss, maps, scale)]
        for name, loss in losses.items()
    }
