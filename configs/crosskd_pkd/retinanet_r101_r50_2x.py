"""CrossKD + PKD, RetinaNet R101 to R50, 2x: 37.4 -> 39.8 AP (the README of CrossKD's code; in no
table)."""

from detectron2.config import LazyCall as L

from dense_kd import PKD

from ..crosskd.retinanet_r101_r50_2x import dataloader, lr_multiplier, model, optimizer, train

model.methods.pkd = L(PKD)(weight=2.0)

train.output_dir = "output/crosskd_pkd/retinanet_r101_r50_2x"
