"""The student of the demo without a teacher: the baseline."""

from ..common.data.shapes import dataloader
from ..common.models.small import small_fcos
from ..common.optim import AdamW as optimizer
from ..common.schedule import one_cycle
from ..common.train import train

model = small_fcos(width=16)
lr_multiplier = one_cycle()

train.max_iter = 1000
train.clip_grad = dict(max_norm=10.0, norm_type=2.0)
train.device = "cpu"
train.seed = 1
train.eval_period = 0  # at the end only
train.checkpointer.period = 500
train.output_dir = "output/quickstart/student"
