"""DDOD R50 on CrowdHuman, 12 epochs: PGD's student (88.0 AP, 46.0 MR, 79.0 JI in its Table 3).

Batches of 16 and a learning rate of 0.01 are those of PGD's code; the paper prints 32 and 0.02.
"""

from ..common.data.crowdhuman import dataloader
from ..common.models.crowdhuman import crowdhuman_ddod
from ..common.optim import mmdet_SGD as optimizer
from ..common.schedule import step_schedule
from ..common.train import train

model = crowdhuman_ddod(50)

lr_multiplier = step_schedule(11250, [7500, 10312], warmup_length=500)

train.max_iter = 11250
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/ddod/crowdhuman_r50_1x"
