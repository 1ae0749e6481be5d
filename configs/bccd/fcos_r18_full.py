"""FCOS on BCCD with a narrow ResNet-18 from scratch, on images as large as they are, for a GPU."""

from .fcos_r18 import model, optimizer
from .gfl_r18_full import dataloader, lr_multiplier, train

train.output_dir = "output/bccd/fcos_r18_full"
