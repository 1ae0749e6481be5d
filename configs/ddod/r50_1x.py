"""DDOD R50, 12 epochs: mmdetection's ddod_r50_fpn_1x_coco (zoo: 41.7 AP)."""

from ..common.coco_mmdet import dataloader, lr_multiplier, optimizer, train
from ..common.models.ddod import ddod
from ..common.models.mmdet_backbones import mmdet_resnet_fpn

model = ddod(mmdet_resnet_fpn(50))

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/ddod/r50_1x"
