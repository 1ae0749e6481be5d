"""GFL R50, 12 epochs in PGD's recipe: its student (40.2 AP in its Table 1)."""

from ..common.coco_pgd import dataloader, lr_multiplier, optimizer, train
from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import pgd_resnet_fpn

model = gfl(pgd_resnet_fpn(50))

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/gfl/pgd_r50_1x"
