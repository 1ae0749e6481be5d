"""The teacher of the demo: twice as wide as the student, trained half as long again."""

from ..common.models.small import small_fcos
from .student import dataloader, lr_multiplier, optimizer, train

model = small_fcos(width=32)

train.max_iter = 1500
train.checkpointer.period = 500
train.output_dir = "output/quickstart/teacher"
