"""GFL on BCCD with EfficientNet-Lite2, the teacher, on images as large as they are, for a GPU."""

from .gfl_lite2 import model, optimizer
from .gfl_r18_full import dataloader, lr_multiplier, train

train.init_checkpoint = "package://efficientnet-lite2"
train.output_dir = "output/bccd/gfl_lite2_full"
