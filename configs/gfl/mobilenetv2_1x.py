"""GFL MobileNetV2, 12 epochs: a student of BCKD's; we have no AP of it alone."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_mobilenet_v2_fpn
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl(mmdet_mobilenet_v2_fpn())

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/gfl/mobilenetv2_1x"
