"""GFL MobileNetV2, 12 epochs: a student of BCKD's code. Its backbone ends with the last block, of
320 channels, has LeakyReLU of slope 0.1, and nothing of it is fixed, the statistics of its batch
norms (of each process) included. It is in no table; we have no AP of it."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import bckd_mobilenet_v2_fpn
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl(bckd_mobilenet_v2_fpn())

train.init_checkpoint = "torchvision://mobilenet_v2"
train.output_dir = "output/gfl/mobilenetv2_1x"
