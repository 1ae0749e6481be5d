"""RetinaNet R50, 24 epochs."""

from ..common.schedule import lr_multiplier_2x as lr_multiplier
from .r50_1x import dataloader, model, optimizer, train

train.max_iter = 180000
train.output_dir = "output/retinanet/r50_2x"
