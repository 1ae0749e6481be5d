"""GFL R18, 12 epochs: a student of BCKD, LD and CrossKD (35.8 AP in BCKD's Table 1)."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl(mmdet_resnet_fpn(18))

train.init_checkpoint = "torchvision://resnet18"
train.output_dir = "output/gfl/r18_1x"
