"""FCOS R101, 24 epochs, short side 640 to 800: a teacher in detectron2 main's recipe. We have no AP
of it."""

from ..common.models.fcos import fcos
from .r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = fcos(depth=101)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.output_dir = "output/fcos/r101_2x_ms"
