"""FCOS R50, 12 epochs in PGD's recipe: its student (38.2 AP in its Table 1)."""

from ..common.coco_pgd import dataloader, lr_multiplier, optimizer, train
from ..common.models.backbones import TORCHVISION_INPUT
from ..common.models.fcos import mmdet_fcos
from ..common.models.mmdet_backbones import pgd_resnet_fpn

model = mmdet_fcos(pgd_resnet_fpn(50, relu_before_p7=True), TORCHVISION_INPUT, tricks=True)
model.test_nms_thresh = 0.5

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/fcos/pgd_r50_1x"
