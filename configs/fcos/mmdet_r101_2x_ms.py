"""FCOS R101 as in the paper, 24 epochs, short side 640 or 800: mmdetection's
fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco, the teacher of BCKD and CrossKD (zoo: 40.8
AP)."""

from ..common.models.backbones import CAFFE_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import mmdet_caffe_resnet_fpn
from .mmdet_r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = mmdet_fcos(mmdet_caffe_resnet_fpn(101, "p5"), CAFFE_INPUT)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.output_dir = "output/fcos/mmdet_r101_2x_ms"
