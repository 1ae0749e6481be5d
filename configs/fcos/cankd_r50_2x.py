"""FCOS R50 with centre sampling, normalised distances and GIoU, 24 epochs: the student of CanKD's
code, which is FGD's (fgd_r50_2x_ms.py) on images of one size, with one learning rate for all
parameters. We have no AP of it alone; CanKD compares it with mmdet_r50_2x_ms.py (38.5 AP)."""

from ..common.data.coco import dataloader
from ..common.optim import mmdet_SGD as optimizer
from ..common.schedule import mmdet_2x as lr_multiplier
from .fgd_r50_2x_ms import model, train

train.output_dir = "output/fcos/cankd_r50_2x"
