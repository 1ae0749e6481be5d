"""FCOS R50, 24 epochs, short side 640 to 800."""

from ..common.schedule import lr_multiplier_2x as lr_multiplier
from .r50_1x import dataloader, model, optimizer, train

dataloader.train.mapper.augmentations[0].short_edge_length = [640, 672, 704, 736, 768, 800]
train.max_iter = 180000
train.output_dir = "output/fcos/r50_2x"
