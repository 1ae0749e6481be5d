"""RetinaNet X101-64x4d, 12 epochs: the teacher of BCKD, Table 2 (41.0 AP).

Detectron2's zoo has no ImageNet weights of this backbone, torchvision has. This project's script
takes them by name, train.init_checkpoint=torchvision://resnext101_64x4d; the file, which
detectron2's script reads too, is made by

    python tools/convert_checkpoint.py torchvision://resnext101_64x4d x101_64x4d_imagenet.pth
"""

from ..common.models.retinanet import retinanet_x101
from .r50_1x import dataloader, lr_multiplier, optimizer, train

model = retinanet_x101()

dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.image_format = "RGB"

train.init_checkpoint = "x101_64x4d_imagenet.pth"
train.output_dir = "output/retinanet/x101_1x"
