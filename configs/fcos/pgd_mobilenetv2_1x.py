"""FCOS MobileNetV2, 12 epochs in PGD's recipe: its student (32.8 AP in its Table 2)."""

from ..common.models.backbones import TORCHVISION_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import pgd_mobilenet_v2_fpn
from .pgd_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_fcos(pgd_mobilenet_v2_fpn(relu_before_p7=True), TORCHVISION_INPUT, tricks=True)
model.test_nms_thresh = 0.5

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/fcos/pgd_mobilenetv2_1x"
