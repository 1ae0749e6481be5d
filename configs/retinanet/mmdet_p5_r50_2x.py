"""RetinaNet R50 whose P6 is made from P5, 24 epochs: the student of CrossKD."""

from .mmdet_p5_r50_1x import model
from .mmdet_r50_2x import dataloader, lr_multiplier, optimizer, train

train.output_dir = "output/retinanet/mmdet_p5_r50_2x"
