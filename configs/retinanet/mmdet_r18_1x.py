"""RetinaNet R18, 12 epochs: mmdetection's retinanet_r18_fpn_1x_coco (zoo: 31.7 AP)."""

from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnet_fpn(18, "res5"))

train.init_checkpoint = "torchvision://resnet18"
train.output_dir = "output/retinanet/mmdet_r18_1x"
