"""What the key maps of other projects' checkpoints share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ..errors import CheckpointError, listed

Rule = tuple[str, Callable[[re.Match[str]], str]]
"""(pattern of a whole key of theirs, our key for a match)."""

BACKBONE = "backbone.bottom_up"
NORM = r"(weight|bias|running_mean|running_var)"

_RATIOS = _SCALES = 3  # of RetinaNet, in mmdetection and in torchvision


def translate(
    state_dict: Mapping[str, Tensor],
    rules: list[Rule],
    dropped: Iterable[str],
    *,
    project: str,
    known: str,
    source: str,
) -> dict[str, Tensor]:
    """``state_dict`` under our keys.

    Args:
        state_dict: {key of theirs: tensor}.
        rules: the first that matches a key counts.
        dropped: keys to leave out.
        project: for the error, whose keys they are.
        known: for the error, what the rules are for.
        source: named in the error.

    Raises:
        CheckpointError: a value is no tensor; or lists the keys that no rule knows.
    """
    weights, unknown = {}, []
    dropped = set(dropped)
    for key, value in state_dict.items():
        if key in dropped:
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source} holds no weights: {key!r} is a {type(value).__name__}, expected a tensor"
            )
        matches = ((re.fullmatch(pattern, key), ours) for pattern, ours in rules)
        ours = next((ours(match) for match, ours in matches if match), None)
        if ours is None:
            unknown.append(key)
        else:
            weights[ours] = value
    if unknown:
        lines = [
            f"{source} looks like a checkpoint of {project}, but {len(unknown)} of its "
            f"{len(state_dict)} keys are unknown:",
            *(f"    {key}" for key in listed(unknown)),
            known,
        ]
        raise CheckpointError("\n".join(lines))
    return weights


def resnet_rules(root: str) -> list[Rule]:
    """The keys of torchvision's ResNets and ResNeXts, which mmdetection took over.

    Args:
        root: pattern of what stands before them.
    """
    block = rf"{root}layer([1-4])\.(\d+)"

    def stage(match: re.Match[str]) -> str:
        return f"{BACKBONE}.res{int(match[1]) + 1}.{match[2]}"

    return [
        (rf"{root}conv1\.weight", lambda m: f"{BACKBONE}.stem.conv1.weight"),
        (rf"{root}bn1\.{NORM}", lambda m: f"{BACKBONE}.stem.conv1.norm.{m[1]}"),
        (rf"{block}\.conv([1-3])\.weight", lambda m: f"{stage(m)}.conv{m[3]}.weight"),
        (rf"{block}\.bn([1-3])\.{NORM}", lambda m: f"{stage(m)}.conv{m[3]}.norm.{m[4]}"),
        (rf"{block}\.downsample\.0\.weight", lambda m: f"{stage(m)}.shortcut.weight"),
        (rf"{block}\.downsample\.1\.{NORM}", lambda m: f"{stage(m)}.shortcut.norm.{m[3]}"),
    ]


def reorder_anchors(weights: dict[str, Tensor], source: str) -> None:
    """Make the anchors of RetinaNet's predictions size-major, as detectron2's are.

    The first axis of ``head.cls_score`` and ``head.bbox_pred`` is (A, K) or (A, 4). mmdetection
    and torchvision order the nine A as (ratio, scale), detectron2 as (scale, ratio).
    """
    keys = [k for k in weights if re.fullmatch(r"head\.(cls_score|bbox_pred)\.(weight|bias)", k)]
    boxes = next((weights[k].shape[0] for k in keys if "bbox_pred" in k), 0)
    num_anchors, rest = divmod(boxes, 4)
    if num_anchors <= 1 and not rest:
        return
    for key in keys:
        size = weights[key].shape[0]
        if rest or num_anchors != _RATIOS * _SCALES or size % num_anchors:
            raise CheckpointError(
                f"{source} has {boxes} channels for the boxes of a location and {size} in {key}, "
                f"expected {4 * _RATIOS * _SCALES} and a multiple of {_RATIOS * _SCALES}: the "
                f"order of RetinaNet's anchors is known for {_RATIOS} ratios x {_SCALES} scales"
            )
        anchors = weights[key].unflatten(0, (_RATIOS, _SCALES, -1))
        weights[key] = anchors.transpose(0, 1).flatten(0, 2).contiguous()
