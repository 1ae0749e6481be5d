"""GFL on BCCD with EfficientNet-Lite0 as ImageNet made it: a student whose backbone is fixed; only
FPN and head learn."""

from ..common.models.bccd import bccd_lite
from ..common.models.small import small_gfl
from .gfl_r18 import dataloader, lr_multiplier, optimizer, train

model = bccd_lite(small_gfl, size=0, freeze_at=5)

train.init_checkpoint = "package://efficientnet-lite0"
train.output_dir = "output/bccd/gfl_lite0"
