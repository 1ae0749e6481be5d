"""CrossKD + PKD, FCOS R101 to R50, 2x, short side 640 or 800: 38.5 -> 41.3 AP (the README of
CrossKD's code; in no table)."""

from detectron2.config import LazyCall as L

from dense_kd import PKD

from ..crosskd.fcos_r101_r50_2x_ms import dataloader, lr_multiplier, model, optimizer, train

model.methods.pkd = L(PKD)(weight=2.0)

train.output_dir = "output/crosskd_pkd/fcos_r101_r50_2x_ms"
