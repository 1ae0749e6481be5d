"""RetinaNet R101, 12 epochs: mmdetection's retinanet_r101_fpn_1x_coco (zoo: 38.5 AP)."""

from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnet_fpn(101, "res5"))

train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/retinanet/mmdet_r101_1x"
