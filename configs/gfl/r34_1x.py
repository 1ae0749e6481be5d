"""GFL R34, 12 epochs: a student of BCKD and LD (38.9 AP in BCKD's Table 1)."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl(mmdet_resnet_fpn(34))

train.init_checkpoint = "torchvision://resnet34"
train.output_dir = "output/gfl/r34_1x"
