"""FCOS on BCCD with EfficientNet-Lite2, the teacher, on images as large as they are, for a GPU."""

from .fcos_lite2 import model, optimizer
from .gfl_lite2_full import dataloader, lr_multiplier, train

train.output_dir = "output/bccd/fcos_lite2_full"
