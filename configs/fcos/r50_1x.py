"""FCOS R50, 12 epochs: detectron2 main's fcos_R_50_FPN_1x."""

from ..common.data.coco import dataloader
from ..common.models.fcos import fcos
from ..common.optim import SGD as optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model = fcos(depth=50)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = 90000
train.output_dir = "output/fcos/r50_1x"
