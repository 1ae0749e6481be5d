"""Networks of timm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...timm_models import check_timm_name, require_timm
from .replaced_norms import has_batch_norms, replace_batch_norms
from .sequential import STRIDES, check_stages

_PROBE = (64, 96)
"""(height, width) of the image that shows what a network does; they differ, so axes are told."""

_NOT_OPTIONS = {
    "out_indices": "outputs are named by out_features",
    "features_only": "outputs are named by out_features",
    "feature_cls": "outputs are named by out_features",
    "pretrained": "weights are for train.init_checkpoint",
    "pretrained_cfg": "weights are for train.init_checkpoint",
    "pretrained_cfg_overlay": "weights are for train.init_checkpoint",
    "checkpoint_path": "weights are for train.init_checkpoint",
    "cache_dir": "weights are for train.init_checkpoint",
}
"""{argument of timm.create_model that ``options`` may not have: why}"""


class TimmBackbone(Backbone):
    """The layers of a network of timm (``features_only``) up to its last feature map.

    The outputs are the last maps of their strides: res2 has stride 4, res3 8, res4 16, res5 32. The
    parameters have timm's names behind ``timm.``, as in ``timm.conv_stem.weight``, and start
    randomly: ImageNet's are for ``train.init_checkpoint``, which takes a file of timm's, or a name
    as "timm://resnet50.a1_in1k" or "package://efficientnet-lite0" (see
    :mod:`dense_kd.checkpoint.zoo`). The detector has to show it images as those weights saw them:
    :func:`dense_kd.detectors.timm_normalisation`.
    """

    def __init__(
        self,
        *,
        name: str,
        norm: str | Callable[[int], nn.Module] = "BN",
        freeze_at: int = 0,
        out_features: Iterable[str] = ("res3", "res4", "res5"),
        options: Mapping[str, Any] | None = None,
    ):
        """
        Args:
            name: of the model, as in ``timm.list_models()``; the tag of weights may follow it.
            norm: in the place of each batch norm, see :mod:`.batch_norm`; "BN" leaves timm's. Other
                norms, such as LayerNorm, stay as they are.
            freeze_at: as for detectron2's ResNet: 0 freezes nothing, 1 the stem (all that has
                stride 2), 2 the stem and res2, ..., 5 everything. Frozen parameters are not
                trained, frozen batch norms become FrozenBN, and frozen blocks drop no paths.
            out_features: names of the outputs.
            options: further arguments of ``timm.create_model``, as ``{"drop_path_rate": 0.1}``.

        Raises:
            MissingExtraError: timm is not installed.
            ValueError: timm has no such model, or it gives no feature maps (N, C, H, W) of these
                strides for images of any size; or an argument is none of the above.
        """
        super().__init__()
        self._out_features = list(out_features)
        check_stages(self._out_features, freeze_at)
        self.name = name
        self._out_feature_strides = {out: STRIDES[out] for out in self._out_features}
        self.timm: nn.Module = _features(
            name, dict(options or {}), list(self._out_feature_strides.values())
        )
        info: Any = self.timm.feature_info
        places = {stride: place for place, stride in enumerate(info.reduction())}  # the last ones
        self._places = {out: places[STRIDES[out]] for out in self._out_features}
        self._out_feature_channels = {out: info.channels()[at] for out, at in self._places.items()}
        if norm != "BN" and not has_batch_norms(self.timm):
            raise ValueError(
                f"norm={norm!r}: {name} has no batch norm that it could replace; leave norm out"
            )
        maps = _probe(self.timm, name)
        parameters = dict(self.timm.named_parameters())
        needed = _needed_for([maps[place] for place in self._places.values()], parameters)
        frozen = _needed_for(maps[: _end_of_frozen(freeze_at, places, name)], parameters)
        for key, parameter in parameters.items():
            # DistributedDataParallel refuses parameters that no output needs.
            parameter.requires_grad_(key in needed and key not in frozen)
        self._frozen = _all_in(self.timm, frozen)
        for key in self._frozen:
            replace_batch_norms(self.timm, "FrozenBN", key)
        if norm != "BN":
            replace_batch_norms(self.timm, norm)
        self.train()

    def train(self, mode: bool = True) -> TimmBackbone:
        """Frozen layers stay in eval mode, in which blocks do not drop paths."""
        super().train(mode)
        for key in self._frozen:
            self.timm.get_submodule(key).eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """
        Args:
            images: (N, 3, H, W), normalised.

        Returns:
            {name: (N, C, ceil(H / stride), ceil(W / stride))} of ``out_features``.
        """
        maps = self.timm(images)
        return {name: maps[place] for name, place in self._places.items()}


def _features(name: str, options: dict[str, Any], strides: list[int]) -> nn.Module:
    """The network, with all its feature maps up to the largest of ``strides``, which it has."""
    timm = require_timm()
    check_timm_name(name)
    for key in options:
        if key in _NOT_OPTIONS:
            raise ValueError(
                f"options has {key!r}, expected what changes the layers of {name}: "
                f"{_NOT_OPTIONS[key]}"
            )

    def create(**arguments: Any) -> nn.Module:
        try:
            return timm.create_model(name, features_only=True, **arguments, **options)
        except Exception as error:  # each family of models has its own
            raise ValueError(
                f"timm cannot make a network of feature maps of {name} with options={options}: "
                f"{type(error).__name__}: {error}"
            ) from error

    network = create()
    info: Any = network.feature_info
    found = info.reduction()
    missing = [stride for stride in strides if stride not in found]
    if missing:
        names = [out for out, stride in STRIDES.items() if stride in found]
        raise ValueError(
            f"{name} has feature maps of strides {found}, none of {missing}; take another model"
            + (f", or give out_features of {names}" if names else "")
        )
    count = 1 + max(place for place, stride in enumerate(found) if stride == max(strides))
    if count == len(found):
        return network
    return create(out_indices=tuple(info.out_indices[:count]))


def _probe(network: nn.Module, name: str) -> list[Tensor]:
    """The maps of one image, which remember what they come from, if they are as timm says."""
    height, width = _PROBE
    info: Any = network.feature_info
    expected = [
        (1, channels, height // stride, width // stride)
        for stride, channels in zip(info.reduction(), info.channels())
    ]
    advice = (
        f"expected maps {expected} (N, C, H, W), and others for images of other sizes; take a "
        "convolutional network"
    )
    network.eval()
    first = next(network.parameters())
    image = torch.zeros(1, getattr(network, "in_chans", 3), height, width, device=first.device)
    try:
        with torch.enable_grad():
            maps = list(network(image))
    except Exception as error:  # networks of one size refuse others in many ways
        raise ValueError(
            f"{name} cannot be run on an image of {height} x {width} pixels ({error}); {advice}"
        ) from error
    shapes = [tuple(feature.shape) for feature in maps]
    if shapes != expected:
        raise ValueError(f"{name} makes maps {shapes} of {height} x {width} pixels; {advice}")
    return maps


def _end_of_frozen(freeze_at: int, places: Mapping[int, int], name: str) -> int:
    """How many of the first maps come from frozen layers alone."""
    if freeze_at == 0:
        return 0
    stride = min(2**freeze_at, max(places))
    if stride not in places:
        possible = [i for i in range(1, 6) if 2**i in places]
        raise ValueError(
            f"freeze_at={freeze_at}: {name} has no feature map of stride {stride}, at which that "
            f"would end; expected 0 or one of {possible}"
        )
    return places[stride] + 1


def _needed_for(maps: list[Tensor], parameters: Mapping[str, nn.Parameter]) -> set[str]:
    """The keys of the parameters that ``maps`` depend on."""
    if not maps:
        return set()
    ones = [torch.ones_like(feature) for feature in maps]
    gradients = torch.autograd.grad(
        maps, list(parameters.values()), ones, retain_graph=True, allow_unused=True
    )
    return {key for key, gradient in zip(parameters, gradients) if gradient is not None}


def _all_in(network: nn.Module, keys: set[str]) -> list[str]:
    """The names of the outermost modules that have parameters, all of them in ``keys``."""
    found: list[str] = []
    for name, module in network.named_modules():
        own = [f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters()]
        inside = any(outer == "" or name.startswith(f"{outer}.") for outer in found)
        if own and not inside and keys.issuperset(own):
            found.append(name)
    return found
