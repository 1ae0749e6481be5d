"""FCOS on BCCD with a narrow ResNet-18 from scratch, in the recipe of GFL."""

from ..common.models.bccd import bccd_r18
from ..common.models.small import small_fcos
from .gfl_r18 import dataloader, lr_multiplier, optimizer, train

model = bccd_r18(small_fcos)

train.output_dir = "output/bccd/fcos_r18"
