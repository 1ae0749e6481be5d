"""GFL R101, 24 epochs, short side 480 to 800: mmdetection's gfl_r101_fpn_mstrain_2x_coco, the
teacher of BCKD, LD and CrossKD (zoo: 44.7 AP, 44.9 in the papers)."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from .r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = gfl(mmdet_resnet_fpn(101))

train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/gfl/r101_2x_ms"
