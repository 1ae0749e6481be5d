"""ATSS R50, 12 epochs: mmdetection's atss_r50_fpn_1x_coco (zoo: 39.4 AP)."""

from ..common.coco_mmdet import dataloader, lr_multiplier, optimizer, train
from ..common.models.atss import atss
from ..common.models.mmdet_backbones import mmdet_resnet_fpn

model = atss(mmdet_resnet_fpn(50))

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/atss/r50_1x"
