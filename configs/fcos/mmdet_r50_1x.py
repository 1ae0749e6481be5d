"""FCOS R50 as in the paper, 12 epochs: mmdetection's fcos_r50_caffe_fpn_gn-head_1x_coco (zoo: 36.6
AP)."""

from ..common.data.coco import dataloader
from ..common.models.backbones import CAFFE_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import mmdet_caffe_resnet_fpn
from ..common.optim import mmdet_fcos_SGD as optimizer
from ..common.schedule import mmdet_fcos_1x as lr_multiplier
from ..common.train import train

model = mmdet_fcos(mmdet_caffe_resnet_fpn(50, "p5"), CAFFE_INPUT)

train.max_iter = 90000
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "output/fcos/mmdet_r50_1x"
