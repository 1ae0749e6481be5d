"""AutoAssign R50, 12 epochs in PGD's recipe: its student (40.6 AP in its Table 1)."""

from ..common.coco_pgd import dataloader, lr_multiplier, optimizer, train
from ..common.models.autoassign import autoassign
from ..common.models.backbones import TORCHVISION_INPUT
from ..common.models.mmdet_backbones import pgd_resnet_fpn

model = autoassign(pgd_resnet_fpn(50, "res5", relu_before_p7=True), TORCHVISION_INPUT)

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/autoassign/pgd_r50_1x"
