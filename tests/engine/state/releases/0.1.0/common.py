"""What the runs of this release share: a dataset of their own, a tiny backbone, a schedule."""

import os

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from dense_kd.data import TrainLoader, detection_dataset, register_shapes

register_shapes("release_train", os.path.join(os.path.dirname(__file__), "images"), "train")


def backbone():
    """Three narrow stages of a block each, and the levels P3 and P4 with 4 channels."""
    return L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=2, norm="BN"),
            stages=[
                L(ResNet.make_stage)(
                    block_class=BasicBlock,
                    num_blocks=1,
                    stride_per_block=[1 if stage == 0 else 2],
                    in_channels=2 * 2 ** max(stage - 1, 0),
                    out_channels=2 * 2**stage,
                    norm="BN",
                )
                for stage in range(3)
            ],
            out_features=["res3", "res4"],
        ),
        in_features=["res3", "res4"],
        out_channels=4,
    )


# A call: what is made is a tuple in detectron2 0.5, and something else in later versions.
input_shape = [L(ShapeSpec)(channels=4) for _ in range(2)]


dataloader = dict(
    train=L(TrainLoader)(
        dataset=L(detection_dataset)(names="release_train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[L(T.RandomFlip)(horizontal=True)],
            image_format="BGR",
        ),
        total_batch_size=2,
        num_workers=0,
    )
)

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=0.75,
    warmup_factor=0.1,
)

train = dict(
    output_dir="",
    overwrite=False,
    init_checkpoint="",
    init_partial=False,
    max_iter=8,
    seed=7,
    amp=dict(enabled=False, dtype="float16"),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    clip_grad=None,
    accumulate=1,
    checkpointer=dict(period=4, max_to_keep=100),
    eval_period=0,
    log_period=1,
    device="cpu",
)
