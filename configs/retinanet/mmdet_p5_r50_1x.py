"""RetinaNet R50 whose P6 is made from P5, 12 epochs: a student of CrossKD's code. We have no AP of
it; the 36.5 of CrossKD's Table 8 are those of mmdet_r50_1x.py."""

from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnet_fpn(50, "p5"))

train.output_dir = "output/retinanet/mmdet_p5_r50_1x"
