"""RetinaNet X101-64x4d, 12 epochs: the teacher of BCKD, Table 2 (41.0 AP)."""

from ..common.models.retinanet import retinanet_x101
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = retinanet_x101()

dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.image_format = "RGB"

train.init_checkpoint = "torchvision://resnext101_64x4d"
train.output_dir = "output/retinanet/x101_1x"
