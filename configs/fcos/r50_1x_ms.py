"""FCOS R50, 12 epochs, short side 640 to 800: detectron2 main's fcos_R_50_FPN_1x. We have no AP of
it."""

from ..common.data.coco import dataloader
from ..common.data.scales import DETECTRON2_SIDES, choice_of_sides
from ..common.models.fcos import fcos
from ..common.optim import SGD as optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model = fcos(depth=50)

choice_of_sides(dataloader, *DETECTRON2_SIDES)
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = 90000
train.output_dir = "output/fcos/r50_1x_ms"
