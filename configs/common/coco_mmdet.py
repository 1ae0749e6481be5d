"""mmdetection's recipe of 12 epochs on COCO, from ImageNet weights of torchvision's (RGB)."""

from .data.coco import dataloader
from .optim import mmdet_SGD as optimizer
from .schedule import mmdet_1x as lr_multiplier
from .train import train

dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.image_format = "RGB"

train.max_iter = 90000
