"""DDOD R50, 12 epochs in PGD's recipe: its student (42.0 AP in its Table 1)."""

from ..common.coco_pgd import dataloader, lr_multiplier, optimizer, train
from ..common.models.ddod import ddod
from ..common.models.mmdet_backbones import pgd_resnet_fpn

model = ddod(pgd_resnet_fpn(50), cost_rule="pgd", separate_level_counts=True)

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/ddod/pgd_r50_1x"
