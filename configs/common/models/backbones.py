"""Backbones of the COCO models: ResNet and ResNeXt with an FPN from P3 to P7."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BottleneckBlock

# The images that the ImageNet weights of a backbone expect.
MSRA_INPUT = dict(
    pixel_mean=[103.53, 116.28, 123.675], pixel_std=[1.0, 1.0, 1.0], input_format="BGR"
)
TORCHVISION_INPUT = dict(
    pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375], input_format="RGB"
)

NUM_BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def resnet_fpn(depth, extra_levels_from, num_groups=1, width_per_group=64, stride_in_1x1=True):
    """P6 and P7 come from "res5" (RetinaNet) or "p5" (FCOS)."""
    return L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=[
                L(ResNet.make_stage)(
                    block_class=BottleneckBlock,
                    num_blocks=num_blocks,
                    stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
                    in_channels=64 if stage == 0 else 128 * 2**stage,
                    bottleneck_channels=num_groups * width_per_group * 2**stage,
                    out_channels=256 * 2**stage,
                    num_groups=num_groups,
                    stride_in_1x1=stride_in_1x1,
                    norm="FrozenBN",
                )
                for stage, num_blocks in enumerate(NUM_BLOCKS[depth])
            ],
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelP6P7)(
            in_channels=2048 if extra_levels_from == "res5" else 256,
            out_channels=256,
            in_feature=extra_levels_from,
        ),
    )
