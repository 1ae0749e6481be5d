"""RetinaNet R50, 12 epochs, short side 640 to 800: detectron2's retinanet_R_50_FPN_1x (zoo: 37.4
AP)."""

from ..common.data.coco import dataloader
from ..common.data.scales import DETECTRON2_SIDES, choice_of_sides
from ..common.models.retinanet import retinanet_r50
from ..common.optim import SGD as optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model = retinanet_r50()

choice_of_sides(dataloader, *DETECTRON2_SIDES)
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = 90000
train.output_dir = "output/retinanet/r50_1x_ms"
