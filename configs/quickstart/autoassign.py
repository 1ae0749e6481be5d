"""AutoAssign on the generated shapes, in the recipe of the demo's student."""

from ..common.models.small import small_autoassign
from .student import dataloader, lr_multiplier, optimizer, train

model = small_autoassign(width=16)

train.output_dir = "output/quickstart/autoassign"
