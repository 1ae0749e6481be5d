"""GFL R50, 24 epochs, short side 480 to 800: mmdetection's gfl_r50_fpn_mstrain_2x_coco (zoo: 42.9
AP)."""

from ..common.data.scales import range_of_sides
from ..common.schedule import mmdet_2x as lr_multiplier
from .r50_1x import dataloader, model, optimizer, train

range_of_sides(dataloader, 480, 800)
train.max_iter = 180000
train.output_dir = "output/gfl/r50_2x_ms"
