"""What the options of detectors and heads may be, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...options import (
    check_counts,
    check_flags,
    check_not_negative,
    check_numbers,
    check_padding_multiple,
    check_positive,
    check_shares,
    check_widths,
    check_within,
)


def _at_least_0(**counts: Any) -> None:
    check_counts(at_least=0, **counts)


def _or_none(check: Callable[..., None]) -> Callable[..., None]:
    def check_given(**options: Any) -> None:
        try:
            check(**{name: value for name, value in options.items() if value is not None})
        except ValueError as error:
            raise ValueError(f"{error}, or None") from None

    return check_given


def _share_or_minus_1(**options: Any) -> None:
    """fvcore's focal loss weights no class with an alpha of -1."""
    for name, value in options.items():
        try:
            check_shares(**({} if value == -1 else {name: value}))
        except ValueError as error:
            raise ValueError(f"{error}, or -1 for no weights") from None


CHECKS: Mapping[str, Callable[..., None]] = {
    "num_classes": check_counts,
    "num_anchors": check_counts,
    "conv_dims": check_widths,
    "prior_prob": check_within,
    "box_bias": check_numbers,
    "reg_max": _or_none(check_counts),
    "conv_bias": check_flags,
    "level_scales": check_flags,
    "loss_normalizer": check_positive,
    "loss_normalizer_momentum": check_shares,
    "loss_normalizer_sync": check_flags,
    "count_empty_images": check_flags,
    "focal_loss_alpha": _share_or_minus_1,
    "focal_loss_gamma": check_not_negative,
    "quality_focal_loss_beta": check_not_negative,
    "smooth_l1_beta": check_not_negative,
    "box_loss_weight": check_not_negative,
    "distribution_loss_weight": check_not_negative,
    "positive_loss_weight": check_not_negative,
    "negative_loss_weight": check_not_negative,
    "center_loss_weight": check_not_negative,
    "center_sampling_radius": _or_none(check_positive),
    "assign_topk": check_counts,
    "padding_multiple": check_padding_multiple,
    "reassign_best_anchors": check_flags,
    "cls_alpha": check_shares,
    "reg_alpha": _or_none(check_shares),
    "separate_level_counts": check_flags,
    "test_score_thresh": check_shares,
    "test_topk_candidates": check_counts,
    "test_nms_thresh": check_shares,
    "max_detections_per_image": check_counts,
    "clip_before_nms": check_flags,
    "vis_period": _at_least_0,
}
"""Each raises ValueError. An option out of its range would train something else, or leave out
detections, without a word."""


def check_options(**options: Any) -> None:
    """Raise ValueError unless each option is what :data:`CHECKS` has for its name."""
    for name, value in options.items():
        CHECKS[name](**{name: value})


def checked_names(names: list[str] | None, num_classes: int) -> list[str] | None:
    """A detector's ``class_names`` as a list, or None.

    Raises:
        ValueError: there are not ``num_classes`` different ones.
    """
    if names is None:
        return None
    names = list(names)
    if len(names) != num_classes or len(set(names)) != len(names):
        raise ValueError(
            f"class_names has {len(names)} names, {len(set(names))} of them different; expected "
            f"{num_classes} different ones, as num_classes says"
        )
    return names
