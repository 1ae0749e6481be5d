"""DDOD R101 on CrowdHuman, 36 epochs, short side 480 to 960: PGD's teacher (90.2 AP, 41.4 MR, 81.4
JI in its Table 3)."""

from ..common.data.scales import range_of_sides
from ..common.models.crowdhuman import crowdhuman_ddod
from ..common.schedule import step_schedule
from .crowdhuman_r50_1x import dataloader, optimizer, train

model = crowdhuman_ddod(101)

range_of_sides(dataloader, 480, 960)
lr_multiplier = step_schedule(33750, [22500, 30937], warmup_length=500)

train.clip_grad = None
train.max_iter = 33750
train.init_checkpoint = "torchvision://resnet101"
train.output_dir = "output/ddod/crowdhuman_r101_3x_ms"
