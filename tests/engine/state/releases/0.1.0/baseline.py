"""DDOD alone: two normalisers of losses, counts of positives by level, AdamW."""

import torch
from detectron2.config import LazyCall as L

from dense_kd import DDOD
from dense_kd.detectors import ATSSHead
from dense_kd.engine.optimizer import layer_bias_params

from .common import backbone, dataloader, input_shape, lr_multiplier, train

model = L(DDOD)(
    backbone=backbone(),
    head=L(ATSSHead)(
        quality="iou",
        input_shape=input_shape,
        num_classes="${..num_classes}",
        conv_dims=[4],
        norm="naiveSyncBN",  # plain in one process; "BN" is another module in each detectron2
    ),
    head_in_features=["p3", "p4"],
    num_classes=5,
    loss_normalizer_momentum=0.9,
    pixel_mean=[127.5, 127.5, 127.5],
    pixel_std=[64.0, 64.0, 64.0],
)
# detectron2's function makes other groups in each version.
optimizer = L(torch.optim.AdamW)(
    params=L(layer_bias_params)(base_lr="${..lr}", bias_lr_factor=2.0, weight_decay_bias=0.0),
    lr=1e-2,
    weight_decay=1e-4,
)
train.output_dir = "baseline"
