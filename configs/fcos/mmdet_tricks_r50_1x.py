"""FCOS R50 with centre sampling, normalised distances, centreness from the box tower and GIoU, 12
epochs: mmdetection's fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco (zoo: 38.7
AP)."""

from ..common.models.backbones import MSRA_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import mmdet_caffe_resnet_fpn
from ..common.schedule import step_schedule
from .mmdet_r50_1x import dataloader, optimizer, train

model = mmdet_fcos(mmdet_caffe_resnet_fpn(50, "p5"), MSRA_INPUT, tricks=True, box_loss="giou")

# FCOS's, with a linear warm-up.
lr_multiplier = step_schedule(90000, [60000, 82500], warmup_length=500, warmup_factor=1 / 3)

train.clip_grad = None
train.output_dir = "output/fcos/mmdet_tricks_r50_1x"
