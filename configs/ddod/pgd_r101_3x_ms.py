"""DDOD R101, 36 epochs, short side 480 to 960: PGD's teacher (46.6 AP in its Table 1)."""

from ..common.data.scales import range_of_sides
from ..common.models.ddod import ddod
from ..common.models.mmdet_backbones import pgd_resnet_fpn
from ..common.schedule import pgd_3x as lr_multiplier
from .pgd_r50_1x import dataloader, optimizer, train

model = ddod(pgd_resnet_fpn(101), cost_rule="pgd", separate_level_counts=True)

range_of_sides(dataloader, 480, 960)
train.clip_grad = None
train.max_iter = 135000
train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/ddod/pgd_r101_3x_ms"
