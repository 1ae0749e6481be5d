"""DDOD on the generated shapes, in the recipe of the demo's student."""

from ..common.models.small import small_ddod
from .student import dataloader, lr_multiplier, optimizer, train

model = small_ddod(width=16)

train.output_dir = "output/quickstart/ddod"
