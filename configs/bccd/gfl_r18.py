"""GFL on BCCD with a ResNet-18 of a quarter of its channels, from scratch: a student. Half the size
of the images, so that a CPU trains it."""

from ..common.data.bccd import bccd
from ..common.models.bccd import bccd_r18
from ..common.models.small import small_gfl
from ..common.optim import AdamW as optimizer
from ..common.schedule import one_cycle
from ..common.train import train

dataloader = bccd(height=240, batch_size=8, num_workers=0)
model = bccd_r18(small_gfl)
lr_multiplier = one_cycle()

train.max_iter = 1000  # 39 epochs
train.clip_grad = dict(max_norm=10.0, norm_type=2.0)
train.device = "cpu"
train.seed = 1
train.eval_period = 250
train.checkpointer.period = 250
train.output_dir = "output/bccd/gfl_r18"
