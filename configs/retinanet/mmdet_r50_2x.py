"""RetinaNet R50, 24 epochs: mmdetection's retinanet_r50_fpn_2x_coco (zoo: 37.4 AP)."""

from ..common.schedule import mmdet_2x as lr_multiplier
from .mmdet_r50_1x import dataloader, model, optimizer, train

train.max_iter = 180000
train.output_dir = "output/retinanet/mmdet_r50_2x"
