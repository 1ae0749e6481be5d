"""ATSS with an IoU branch, R50, 12 epochs in PGD's recipe: its student (39.6 AP in its Table 1)."""

from ..common.coco_pgd import dataloader, lr_multiplier, optimizer, train
from ..common.models.atss import atss
from ..common.models.mmdet_backbones import pgd_resnet_fpn

model = atss(pgd_resnet_fpn(50), quality="iou")

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/atss/pgd_iou_r50_1x"
