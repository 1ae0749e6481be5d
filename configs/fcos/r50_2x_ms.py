"""FCOS R50, 24 epochs, short side 640 to 800: the recipe of r50_1x_ms.py, longer. We have no AP of
it."""

from ..common.schedule import lr_multiplier_2x as lr_multiplier
from .r50_1x_ms import dataloader, model, optimizer, train

train.max_iter = 180000
train.output_dir = "output/fcos/r50_2x_ms"
