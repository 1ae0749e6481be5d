"""AutoAssign R50, 12 epochs: mmdetection's autoassign_r50_caffe_fpn_8x2_1x_coco (zoo: 40.4 AP, give
or take 0.3)."""

from ..common.data.coco import dataloader
from ..common.models.autoassign import autoassign
from ..common.models.backbones import CAFFE_INPUT
from ..common.models.mmdet_backbones import mmdet_caffe_resnet_fpn
from ..common.optim import SGD as optimizer
from ..common.schedule import mmdet_1x_long_warmup as lr_multiplier
from ..common.train import train

model = autoassign(mmdet_caffe_resnet_fpn(50, "res5"), CAFFE_INPUT)

train.max_iter = 90000
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "output/autoassign/r50_1x"
