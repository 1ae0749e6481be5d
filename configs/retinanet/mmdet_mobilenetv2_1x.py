"""RetinaNet MobileNetV2, 12 epochs: a student of CrossKD (34.1 AP with it, unknown without)."""

from ..common.models.mmdet_backbones import mmdet_mobilenet_v2_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_mobilenet_v2_fpn("res5"))

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/retinanet/mmdet_mobilenetv2_1x"
