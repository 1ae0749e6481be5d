"""GFL on BCCD with EfficientNet-Lite2, from ImageNet: the teacher, with one and a half times the
channels of the students in FPN and head, and images whose sizes and colours vary."""

from ..common.data.bccd import bccd
from ..common.models.bccd import bccd_lite
from ..common.models.small import small_gfl
from .gfl_r18 import lr_multiplier, optimizer, train

dataloader = bccd(height=240, batch_size=8, num_workers=0, jitter=True)
model = bccd_lite(small_gfl, size=2, channels=96)
optimizer.lr = 1e-3

train.max_iter = 700  # 27 epochs; with more, it learns its images by heart
train.init_checkpoint = "package://efficientnet-lite2"
train.output_dir = "output/bccd/gfl_lite2"
