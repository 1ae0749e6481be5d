"""ATSS R101, 12 epochs: mmdetection's atss_r101_fpn_1x_coco, the teacher of CrossKD (zoo: 41.5
AP)."""

from ..common.models.atss import atss
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = atss(mmdet_resnet_fpn(101))

train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/atss/r101_1x"
