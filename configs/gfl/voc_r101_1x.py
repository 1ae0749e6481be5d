"""GFL R101 on Pascal VOC, 12 epochs of both trainval sets: a teacher. We have no AP of it."""

from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from .voc_r50_1x import dataloader, lr_multiplier, optimizer, train

model = gfl(mmdet_resnet_fpn(101))
model.num_classes = 20

train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/gfl/voc_r101_1x"
