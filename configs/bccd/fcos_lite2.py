"""FCOS on BCCD with EfficientNet-Lite2, the teacher, in the recipe of GFL."""

from ..common.models.bccd import bccd_lite
from ..common.models.small import small_fcos
from .gfl_lite2 import dataloader, lr_multiplier, optimizer, train

model = bccd_lite(small_fcos, size=2, channels=96)

train.output_dir = "output/bccd/fcos_lite2"
