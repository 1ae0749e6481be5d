"""GFL on BCCD with EfficientNet-Lite2, from ImageNet: the teacher, with twice the channels of the
students in FPN and head."""

from ..common.models.bccd import bccd_lite
from ..common.models.small import small_gfl
from .gfl_r18 import dataloader, lr_multiplier, optimizer, train

model = bccd_lite(small_gfl, size=2, channels=128)
optimizer.lr = 1e-3

train.init_checkpoint = "package://efficientnet-lite2"
train.output_dir = "output/bccd/gfl_lite2"
