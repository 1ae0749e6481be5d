"""RetinaNet R101, 24 epochs, short side 640 to 800: a teacher.

The same model as detectron2's retinanet_R_101_FPN_3x, whose weights (zoo: 40.4 AP) load into it; we
have no AP of 24 epochs.
"""

from ..common.models.retinanet import retinanet_r101
from .r50_2x_ms import dataloader, lr_multiplier, optimizer, train

model = retinanet_r101()

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.output_dir = "output/retinanet/r101_2x_ms"
