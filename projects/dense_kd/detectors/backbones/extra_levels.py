"""The levels that an FPN adds above those of the backbone."""

from __future__ import annotations

from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor


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
