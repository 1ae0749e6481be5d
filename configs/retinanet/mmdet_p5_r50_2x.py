"""RetinaNet R50 whose P6 is made from P5, 24 epochs: a student of CrossKD's code. We have no AP of
it; the 37.4 of CrossKD's Table 6 are those of mmdet_r50_2x.py."""

from .mmdet_p5_r50_1x import model
from .mmdet_r50_2x import dataloader, lr_multiplier, optimizer, train

train.output_dir = "output/retinanet/mmdet_p5_r50_2x"
