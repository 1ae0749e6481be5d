"""Parts of backbones that detectron2 lacks; its own ResNet and FPN take them as arguments."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor, nn


class LastLevelP6P7OptionalReLU(LastLevelP6P7):
    """detectron2's ``LastLevelP6P7``, whose ReLU between P6 and P7 can be left out.

    The extra levels of mmdetection's FPN have no ReLU unless its ``relu_before_extra_convs`` is
    set: there RetinaNet, ATSS, GFL and DDOD go without it, FCOS and AutoAssign with it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, in_feature: str = "res5", relu: bool = False
    ):
        """
        Args:
            in_channels: of the map that P6 is made from.
            out_channels: of P6 and P7.
            in_feature: that map's name: "res5" (mmdetection's ``on_input``) or "p5"
                (``on_output``).
            relu: whether P7 is made from P6 after a ReLU.
        """
        super().__init__(in_channels, out_channels, in_feature)
        self.relu = relu

    def forward(self, feature: Tensor) -> list[Tensor]:
        """P6 and P7, each (N, out_channels, H, W), from (N, in_channels, H, W)."""
        if self.relu:
            return super().forward(feature)
        p6 = self.p6(feature)
        return [p6, self.p7(p6)]


class FrozenStatisticsBatchNorm(nn.BatchNorm2d):
    """Batch norm with fixed statistics whose factor and bias are trained.

    This is what mmdetection's ``norm_eval=True`` with ``requires_grad=True`` means. detectron2's
    "FrozenBN" fixes factor and bias, too, and its "BN" adapts the statistics. Usable as ``norm``
    of detectron2's ResNet, whose ``freeze_at`` makes it a FrozenBN in the frozen stages. Its
    state dict has the keys of FrozenBN.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features)
        self.num_batches_tracked = None  # nothing is tracked
        self.eval()

    def train(self, mode: bool = True) -> FrozenStatisticsBatchNorm:
        """Stays in eval mode, in which torch's batch norm uses the stored statistics."""
        return super().train(False)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a "BN"
        # Up to version 1, torch adds that very key.
        super()._load_from_state_dict(state_dict, prefix, {**local_metadata, "version": 2}, *args)
