"""RetinaNet Swin-T, 12 epochs: the teacher of CrossKD's Table 8 (37.3 AP; AP50 57.5, AP75 39.9,
small 22.7, medium 41.0, large 49.6), in the recipe of its R50 as CrossKD's code has it, with SGD.
Its file is not published."""

from ..common.models.backbones import swin_t_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(swin_t_fpn("res5"))

train.init_checkpoint = "torchvision://swin_t"
train.output_dir = "output/retinanet/mmdet_swin_t_1x"
