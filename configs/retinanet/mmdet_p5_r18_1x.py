"""RetinaNet R18 whose P6 is made from P5, 12 epochs: a student of CrossKD's code; we have no AP of
it."""

from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r18_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnet_fpn(18, "p5"))

train.output_dir = "output/retinanet/mmdet_p5_r18_1x"
