"""GFL on BCCD with a narrow ResNet-18, on images as large as they are, for a GPU."""

from ..common.data.bccd import bccd
from .gfl_r18 import lr_multiplier, model, optimizer, train

dataloader = bccd(height=480, batch_size=16, num_workers=4)

train.max_iter = 1500  # 117 epochs
train.device = "cuda"
train.output_dir = "output/bccd/gfl_r18_full"
