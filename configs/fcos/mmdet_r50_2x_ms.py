"""FCOS R50 as in the paper, 24 epochs, short side 640 or 800: mmdetection's
fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco, the student of CrossKD (zoo: 38.5 AP)."""

from ..common.data.scales import choice_of_sides
from ..common.schedule import mmdet_fcos_2x as lr_multiplier
from .mmdet_r50_1x import dataloader, model, optimizer, train

choice_of_sides(dataloader, 640, 800)
train.max_iter = 180000
train.output_dir = "output/fcos/mmdet_r50_2x_ms"
