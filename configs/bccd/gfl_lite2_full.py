"""GFL on BCCD with EfficientNet-Lite2, the teacher, on images as large as they are, for a GPU."""

from ..common.data.bccd import bccd
from .gfl_lite2 import model, optimizer
from .gfl_r18_full import lr_multiplier, train

dataloader = bccd(height=480, batch_size=16, num_workers=4, jitter=True)

train.max_iter = 1000  # 78 epochs
train.init_checkpoint = "package://efficientnet-lite2"
train.output_dir = "output/bccd/gfl_lite2_full"
