"""Backbones of the COCO models, all with an FPN from P3 to P7.

Common options of the functions:
    extra_levels_from: P6 and P7 come from "res5" (RetinaNet) or "p5" (FCOS).
    relu_before_p7: as in detectron2; mmdetection's RetinaNet, ATSS and GFL have no ReLU there.
    norm: "FrozenBN", FrozenStatisticsBatchNorm, "BN" or "SyncBN"; what each of them trains says
        dense_kd.detectors.backbones.batch_norm.
    fpn_norm: the same for the FPN; "" is none.
    freeze_at: how many stages are fixed; 2 is the stem and res2.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock

from dense_kd.detectors import LastLevelP6P7OptionalReLU, MobileNetV2, SwinTransformer

# The images that the ImageNet weights of a backbone expect.
MSRA_INPUT = dict(
    pixel_mean=[103.53, 116.28, 123.675], pixel_std=[1.0, 1.0, 1.0], input_format="BGR"
)
TORCHVISION_INPUT = dict(
    pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375], input_format="RGB"
)
# mmdetection's FCOS and AutoAssign take the MSRA weights with the means of the older Detectron.
CAFFE_INPUT = dict(
    pixel_mean=[102.9801, 115.9465, 122.7717], pixel_std=[1.0, 1.0, 1.0], input_format="BGR"
)

NUM_BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
IN_FEATURES = ["res3", "res4", "res5"]


def fpn(bottom_up, res5_channels, extra_levels_from, relu_before_p7=True, fpn_norm=""):
    """P3 to P7 of `bottom_up`, whose res5 has `res5_channels`."""
    return L(FPN)(
        bottom_up=bottom_up,
        in_features=IN_FEATURES,
        out_channels=256,
        norm=fpn_norm,
        top_block=L(LastLevelP6P7 if relu_before_p7 else LastLevelP6P7OptionalReLU)(
            in_channels={"res5": res5_channels, "p5": 256}[extra_levels_from],
            out_channels=256,
            in_feature=extra_levels_from,
        ),
    )


def resnet_fpn(
    depth,
    extra_levels_from,
    num_groups=1,
    width_per_group=64,
    stride_in_1x1=True,
    norm="FrozenBN",
    freeze_at=2,
    **fpn_options,
):
    """ResNet-18, 34, 50 or 101. All of its norms follow `bottom_up.stem.norm`.

    stride_in_1x1: where a bottleneck has its stride, and so which weights fit: True is MSRA's
        ("caffe"), False torchvision's ("pytorch"). The blocks of ResNet-18 and 34 have no choice.
    """
    if depth < 50 and (num_groups, width_per_group) != (1, 64):
        raise ValueError(
            f"depth={depth}, num_groups={num_groups}, width_per_group={width_per_group}: only "
            "depth 50 and 101 have groups; leave them out"
        )
    # Stride 2 begins a stage, except the first one: the stem has a pooling.
    common = [
        dict(
            num_blocks=num_blocks,
            stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
            norm="${...stem.norm}",
        )
        for stage, num_blocks in enumerate(NUM_BLOCKS[depth])
    ]
    if depth < 50:
        res5_channels = 512
        stages = [
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                in_channels=64 * 2 ** max(stage - 1, 0),
                out_channels=64 * 2**stage,
                **arguments,
            )
            for stage, arguments in enumerate(common)
        ]
    else:
        res5_channels = 2048
        stages = [
            L(ResNet.make_stage)(
                block_class=BottleneckBlock,
                in_channels=64 if stage == 0 else 128 * 2**stage,
                bottleneck_channels=num_groups * width_per_group * 2**stage,
                out_channels=256 * 2**stage,
                num_groups=num_groups,
                stride_in_1x1=stride_in_1x1,
                **arguments,
            )
            for stage, arguments in enumerate(common)
        ]
    bottom_up = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm=norm),
        stages=stages,
        out_features=IN_FEATURES,
        freeze_at=freeze_at,
    )
    return fpn(bottom_up, res5_channels, extra_levels_from, **fpn_options)


def resnext101_fpn(num_groups, extra_levels_from, **options):
    """ResNeXt-101 32x4d or 64x4d (`num_groups` 32 or 64); `options` are those of `resnet_fpn`."""
    return resnet_fpn(
        101, extra_levels_from, num_groups, width_per_group=4, stride_in_1x1=False, **options
    )


def mobilenet_v2_fpn(
    extra_levels_from,
    last_conv=True,
    negative_slope=None,
    norm="FrozenBN",
    freeze_at=2,
    **fpn_options,
):
    """MobileNetV2; `last_conv` says whether res5 has 1280 channels or 320, and `negative_slope` of
    which LeakyReLU its activations are, instead of ReLU6."""
    bottom_up = L(MobileNetV2)(
        last_conv=last_conv,
        negative_slope=negative_slope,
        norm=norm,
        freeze_at=freeze_at,
        out_features=IN_FEATURES,
    )
    res5_channels = 1280 if last_conv else 320
    return fpn(bottom_up, res5_channels, extra_levels_from, **fpn_options)


def swin_t_fpn(extra_levels_from, drop_path_rate=0.2, freeze_at=0, **fpn_options):
    """Swin-T; it has no batch norm, so no `norm`."""
    bottom_up = L(SwinTransformer)(
        drop_path_rate=drop_path_rate, freeze_at=freeze_at, out_features=IN_FEATURES
    )
    return fpn(bottom_up, 768, extra_levels_from, **fpn_options)
