"""FCOS that trains in minutes on a CPU: ResNet-18 of any width, levels P3 to P5, short towers."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock

from dense_kd.detectors import FCOS, FCOSHead


def small_fcos(width, num_classes=5, channels=64):
    """FCOS on a ResNet-18 whose first stage has `width` channels (64 in the original)."""
    return L(FCOS)(
        backbone=L(FPN)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=width, norm="BN"),
                stages=[
                    L(ResNet.make_stage)(
                        block_class=BasicBlock,
                        num_blocks=2,
                        stride_per_block=[1 if stage == 0 else 2, 1],
                        in_channels=width * 2 ** max(stage - 1, 0),
                        out_channels=width * 2**stage,
                        norm="BN",
                    )
                    for stage in range(4)
                ],
                out_features=["res3", "res4", "res5"],
            ),
            in_features=["res3", "res4", "res5"],
            out_channels=channels,
        ),
        head=L(FCOSHead)(
            input_shape=[ShapeSpec(channels=channels)] * 3,
            num_classes="${..num_classes}",
            conv_dims=[channels] * 2,
            norm="GN",
        ),
        head_in_features=["p3", "p4", "p5"],
        num_classes=num_classes,
        # The dataset's images are uint8 with a mid-grey mean.
        pixel_mean=[127.5, 127.5, 127.5],
        pixel_std=[64.0, 64.0, 64.0],
    )
