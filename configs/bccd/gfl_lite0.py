"""GFL on BCCD with EfficientNet-Lite0 as ImageNet made it: a student whose backbone is fixed.

FPN and head have half the channels of gfl_r18.py, and the towers one block: with as many, it is
nearly as good as its teacher.
"""

from ..common.models.bccd import bccd_lite
from ..common.models.small import small_gfl
from .gfl_r18 import dataloader, lr_multiplier, optimizer, train

model = bccd_lite(small_gfl, size=0, channels=32, freeze_at=5)
model.head.conv_dims = [32]

train.init_checkpoint = "package://efficientnet-lite0"
train.output_dir = "output/bccd/gfl_lite0"
