"""RetinaNet X101-32x4d, 12 epochs: mmdetection's retinanet_x101_32x4d_fpn_1x_coco (zoo: 39.9 AP).

Torchvision has no ImageNet weights of this backbone, so it starts from mmdetection's detector.
"""

from ..common.models.mmdet_backbones import mmdet_resnext101_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnext101_fpn(32, "res5"))

train.init_checkpoint = "mmdet://retinanet_x101_32x4d_fpn_1x_coco"
train.output_dir = "output/retinanet/mmdet_x101_32x4d_1x"
