"""FCOS on BCCD with a fixed EfficientNet-Lite0, in the recipe of GFL."""

from ..common.models.bccd import bccd_lite
from ..common.models.small import small_fcos
from .gfl_lite0 import dataloader, lr_multiplier, optimizer, train

model = bccd_lite(small_fcos, size=0, channels=32, freeze_at=5)
model.head.conv_dims = [32]

train.output_dir = "output/bccd/fcos_lite0"
