"""RetinaNet X101-64x4d, 36 epochs, short side 640 to 800: mmdetection's
retinanet_x101_64x4d_fpn_mstrain_640-800_3x_coco (zoo: 41.6 AP). MGD's released config teaches with
it, see mgd/retinanet_x101_r50_2x.py."""

from ..common.data.scales import range_of_sides
from ..common.schedule import mmdet_3x as lr_multiplier
from .mmdet_x101_1x import dataloader, model, optimizer, train

range_of_sides(dataloader, 640, 800)
train.max_iter = 270000
train.output_dir = "output/retinanet/mmdet_x101_3x_ms"
