"""GFL on BCCD with a fixed EfficientNet-Lite0, on images as large as they are, for a GPU."""

from .gfl_lite0 import model, optimizer
from .gfl_r18_full import dataloader, lr_multiplier, train

train.init_checkpoint = "package://efficientnet-lite0"
train.output_dir = "output/bccd/gfl_lite0_full"
