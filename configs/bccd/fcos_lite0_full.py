"""FCOS on BCCD with a fixed EfficientNet-Lite0, on images as large as they are, for a GPU."""

from .fcos_lite0 import model, optimizer
from .gfl_lite0_full import dataloader, lr_multiplier, train

train.output_dir = "output/bccd/fcos_lite0_full"
