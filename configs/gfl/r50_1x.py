"""GFL R50, 12 epochs: mmdetection's gfl_r50_fpn_1x_coco (zoo: 40.2 AP)."""

from ..common.coco_mmdet import dataloader, lr_multiplier, optimizer, train
from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn

model = gfl(mmdet_resnet_fpn(50))

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/gfl/r50_1x"
