"""ATSS with an IoU branch, MobileNetV2, 12 epochs in PGD's recipe: its student (33.5 AP in its
Table 2)."""

from ..common.models.atss import atss
from ..common.models.mmdet_backbones import pgd_mobilenet_v2_fpn
from .pgd_iou_r50_1x import dataloader, lr_multiplier, optimizer, train

model = atss(pgd_mobilenet_v2_fpn(), quality="iou")

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/atss/pgd_iou_mobilenetv2_1x"
