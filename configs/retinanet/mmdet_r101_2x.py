"""RetinaNet R101, 24 epochs: mmdetection's retinanet_r101_fpn_2x_coco, the teacher of CrossKD and
FGD (zoo: 38.9 AP)."""

from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_2x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnet_fpn(101, "res5"))

train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/retinanet/mmdet_r101_2x"
