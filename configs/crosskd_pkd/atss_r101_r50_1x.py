"""CrossKD + PKD, ATSS R101 to R50, 1x: 39.4 -> 41.8 AP (the README of CrossKD's code; in no
table)."""

from detectron2.config import LazyCall as L

from dense_kd import PKD

from ..crosskd.atss_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.pkd = L(PKD)(weight=1.0)

train.output_dir = "output/crosskd_pkd/atss_r101_r50_1x"
