"""A GFL to teach that of gfl.py: twice as wide, trained half as long again."""

from ..common.models.small import small_gfl
from .teacher import dataloader, lr_multiplier, optimizer, train

model = small_gfl(width=32)

train.output_dir = "output/quickstart/gfl_teacher"
