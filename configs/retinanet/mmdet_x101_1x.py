"""RetinaNet X101-64x4d, 12 epochs: mmdetection's retinanet_x101_64x4d_fpn_1x_coco, the teacher of
BCKD's Table 2, PKD and MGD (zoo: 41.0 AP)."""

from ..common.models.mmdet_backbones import mmdet_resnext101_fpn
from ..common.models.retinanet import mmdet_retinanet
from .mmdet_r50_1x import dataloader, lr_multiplier, optimizer, train

model = mmdet_retinanet(mmdet_resnext101_fpn(64, "res5"))

train.init_checkpoint = "torchvision://resnext101_64x4d"
train.output_dir = "output/retinanet/mmdet_x101_1x"
