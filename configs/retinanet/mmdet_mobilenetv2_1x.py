"""RetinaNet MobileNetV2, 12 epochs: a student of CrossKD's Table 8 (30.9 AP; AP50 48.7, AP75 32.5,
small 16.3, medium 33.5, large 41.9). Its config is not published; this is the recipe of the R50."""

from ..common.models.mmdet_backbones import mmdet_mobilenet_v2_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_mobilenet_v2_fpn("res5"))

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/retinanet/mmdet_mobilenetv2_1x"
