"""The keys of MobileNetV2 and Swin Transformer in mmdetection, timm and Swin's own repository.

Ours are torchvision's, ``features.*``. What differs is where layers stand, and in mmdetection's
Swin also the order of channels when patches are merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .keys import BACKBONE, NORM, Rule

_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of MobileNetV2's stages ("MobileNetV2", Table 2)."""

_LAST_CONV = 18
"""The layer of MobileNetV2 behind its 17 blocks."""

_FEATURES = f"{BACKBONE}.features"

_CLASSIFIERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "MobileNetV2": (r"blocks\.0\.0\.conv_dw\.weight", ("classifier.",)),
    "Swin Transformer": (
        r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table", ("norm.", "head."),
    ),
}  # fmt: skip
"""{kind of timm's classifiers: (a key of it, how those after the last feature map begin)}"""


def timm_model(state: Mapping[str, Any]) -> str | None:
    """The kind of timm's classifiers that a state dict is of, None for others'."""
    for kind, (sign, _) in _CLASSIFIERS.items():
        if any(re.fullmatch(sign, key) for key in state):
            return None if kind == "MobileNetV2" and _has_other_blocks(state) else kind
    return None


def _has_other_blocks(state: Mapping[str, Any]) -> bool:
    """Whether timm's names are those of another network with such blocks, such as EfficientNet."""
    found = filter(None, (re.match(r"blocks\.(\d+)\.(\d+)\.", key) for key in state))
    places = {(int(match[1]), int(match[2])) for match in found}
    return any(stage >= len(_STAGES) or block >= _STAGES[stage] for stage, block in places)


def timm_dropped(state: Mapping[str, Any]) -> dict[str, str]:
    """{key of timm's without a counterpart: why}."""
    kind = timm_model(state)
    classifier = _CLASSIFIERS[kind][1] if kind else ()
    dropped = {key: "the classifier" for key in state if key.startswith(classifier)}
    constants = (key for key in state if key.endswith((".num_batches_tracked", ".attn_mask")))
    return {**dropped, **dict.fromkeys(constants, "nothing learned")}


def timm_rules(state: Mapping[str, Any]) -> list[Rule]:
    """The keys of timm's MobileNetV2 and Swin Transformer, and of Swin's own repository."""
    return _timm_mobilenet_rules() + swin_rules("", state)


def mobilenet_rules(root: str) -> list[Rule]:
    """The keys of mmdetection's MobileNetV2, and of mmclassification's.

    Args:
        root: pattern of what stands before them.
    """
    layer = rf"{root}layer([1-7])\.(\d)"
    kind = rf"(conv|bn)\.{NORM}"
    names = {"expand_conv": 0, "depthwise_conv": 1, "linear_conv": 2}
    return [
        (rf"{root}conv1\.{kind}", lambda m: f"{_FEATURES}.0.{_conv_or_norm(m[1])}.{m[2]}"),
        (
            rf"{root}conv2\.{kind}",
            lambda m: f"{_FEATURES}.{_LAST_CONV}.{_conv_or_norm(m[1])}.{m[2]}",
        ),
        (
            rf"{layer}\.({'|'.join(names)})\.{kind}",
            lambda m: _block(m, names[m[3]], m[4], m[5]),
        ),
        (  # mmclassification counts the convolutions of a block; the first stage has two
            rf"{layer}\.conv\.([012])\.{kind}",
            lambda m: _block(m, int(m[3]) + (m[1] == "1"), m[4], m[5]),
        ),
    ]


def _timm_mobilenet_rules() -> list[Rule]:
    stem, head = "(conv_stem|bn1)", "(conv_head|bn2)"
    block = rf"blocks\.([0-6])\.(\d)\.(conv_pw|conv_dw|conv_pwl|bn[123])\.{NORM}"

    def layer(match: re.Match[str]) -> str:
        names = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        if match[1] == "0":  # depthwise separable: no expansion
            names = ["", "", "conv_dw", "bn1", "conv_pw", "bn2"]
        index, norm = divmod(names.index(match[3]), 2)
        return _block_of(int(match[1]), int(match[2]), index, "bn" if norm else "conv", match[4])

    return [
        (
            rf"{stem}\.{NORM}",
            lambda m: f"{_FEATURES}.0.{_conv_or_norm(m[1].partition('_')[0])}.{m[2]}",
        ),
        (
            rf"{head}\.{NORM}",
            lambda m: f"{_FEATURES}.{_LAST_CONV}.{_conv_or_norm(m[1].partition('_')[0])}.{m[2]}",
        ),
        (block, layer),
    ]


def _conv_or_norm(kind: str) -> int:
    return 0 if kind == "conv" else 1


def _block(match: re.Match[str], index: int, kind: str, name: str) -> str:
    return _block_of(int(match[1]) - 1, int(match[2]), index, kind, name)


def _block_of(stage: int, block: int, index: int, kind: str, name: str) -> str:
    """Our key of a tensor of an inverted residual block.

    Args:
        stage: from 0.
        block: in the stage, from 0.
        index: 0 expands, 1 is depthwise, 2 is linear.
        kind: "conv" or "bn".
        name: such as "weight".
    """
    place = f"{_FEATURES}.{1 + sum(_STAGES[:stage]) + block}.conv"
    if stage == 0:
        index -= 1
    linear = 1 if stage == 0 else 2
    if index < linear:
        return f"{place}.{index}.{_conv_or_norm(kind)}.{name}"
    return f"{place}.{linear + _conv_or_norm(kind)}.{name}"


def unread_last_conv(state: Mapping[str, Any]) -> Iterable[str]:
    """The keys of mmdetection's last MobileNetV2 layer, if the neck reads the map before it.

    mmdetection builds the layer in any case.
    """
    laterals = [k for k in state if re.fullmatch(r"neck\.lateral_convs\.\d+\.conv\.weight", k)]
    last = state.get("backbone.conv2.conv.weight")
    if not laterals or not isinstance(last, Tensor):
        return ()
    read = state[max(laterals, key=lambda key: int(key.split(".")[2]))]
    if read.shape[1] == last.shape[0]:
        return ()
    return [key for key in state if key.startswith("backbone.conv2.")]


def swin_rules(root: str, state: Mapping[str, Any]) -> list[Rule]:
    """The keys of mmdetection's Swin Transformer, of Swin's own repository and of timm.

    Args:
        root: pattern of what stands before them.
        state: tells whether patches are merged at the end of a stage, or as in timm before it.
    """
    block = rf"{root}(?:stages|layers)\.(\d)\.blocks\.(\d+)"
    merging = rf"{root}(?:stages|layers)\.(\d)\.downsample"
    at_end = any(re.match(rf"{root}(stages|layers)\.0\.downsample\.", key) for key in state)
    table = "(relative_position_bias_table|relative_position_index)"

    def place(match: re.Match[str]) -> str:
        return f"{_FEATURES}.{1 + 2 * int(match[1])}.{match[2]}"

    def merged(match: re.Match[str]) -> str:
        return f"{_FEATURES}.{2 * int(match[1]) + (2 if at_end else 0)}.{match[2]}.{match[3]}"

    linear = {"ffn.layers.0.0": 0, "ffn.layers.1": 3, "mlp.fc1": 0, "mlp.fc2": 3}
    layers = "|".join(map(re.escape, linear))
    return [
        (
            rf"{root}patch_embed\.(projection|proj|norm)\.(weight|bias)",
            lambda m: f"{_FEATURES}.0.{2 if m[1] == 'norm' else 0}.{m[2]}",
        ),
        (rf"{block}\.attn\.(?:w_msa\.)?{table}", lambda m: f"{place(m)}.attn.{m[3]}"),
        (
            rf"{block}\.attn\.(?:w_msa\.)?(qkv|proj)\.(weight|bias)",
            lambda m: f"{place(m)}.attn.{m[3]}.{m[4]}",
        ),
        (rf"{block}\.(norm[12])\.(weight|bias)", lambda m: f"{place(m)}.{m[3]}.{m[4]}"),
        (
            rf"{block}\.({layers})\.(weight|bias)",
            lambda m: f"{place(m)}.mlp.{linear[m[3]]}.{m[4]}",
        ),
        (rf"{merging}\.(norm|reduction)\.(weight|bias)", merged),
        (rf"{root}norm([0-3])\.(weight|bias)", lambda m: f"{BACKBONE}.norm{m[1]}.{m[2]}"),
    ]


def flatten_position_index(weights: dict[str, Tensor]) -> None:
    """Of the windows' (positions, positions), which torchvision keeps in one row."""
    for key, value in weights.items():
        if key.endswith(".relative_position_index"):
            weights[key] = value.flatten()


def reorder_merged_patches(weights: dict[str, Tensor]) -> None:
    """Give the channels of mmdetection's merged patches torchvision's order.

    Four neighbours of C channels each become 4C: in mmdetection, by ``nn.Unfold``, as (C, row,
    column), in Swin's own repository and torchvision as (column, row, C).
    """
    pattern = rf"{re.escape(_FEATURES)}\.[246]\.(norm|reduction)\.(weight|bias)"
    for key in filter(re.compile(pattern).fullmatch, weights):
        merged = weights[key].unflatten(-1, (-1, 2, 2))  # (..., C, row, column)
        weights[key] = merged.movedim(-3, -1).transpose(-3, -2).flatten(-3).contiguous()
