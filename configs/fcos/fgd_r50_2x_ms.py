"""FCOS R50 with centre sampling, normalised distances and GIoU, 24 epochs, short side 640 or 800:
the student of FGD's code. We have no AP of it alone; FGD compares it with mmdet_r50_2x_ms.py (38.5
AP)."""

from ..common.models.backbones import MSRA_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import mmdet_caffe_resnet_fpn
from ..common.schedule import step_schedule
from .mmdet_r50_2x_ms import dataloader, optimizer, train

model = mmdet_fcos(mmdet_caffe_resnet_fpn(50, "p5"), MSRA_INPUT, tricks=True, box_loss="giou")
model.head.centerness_on = "cls"

# FCOS's, with a linear warm-up.
lr_multiplier = step_schedule(180000, [120000, 165000], warmup_length=500, warmup_factor=1 / 3)

train.clip_grad = None
train.output_dir = "output/fcos/fgd_r50_2x_ms"
