"""LD's localisation terms alone, BCKD, Table 3, GFL R101 to R50, 1x: 40.1 -> 41.8 AP. Its weights
are for 2 images per process: 8 x 2."""

from .gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.ld.cls_weight = 0.0

train.output_dir = "output/ld/gfl_r101_r50_loc_1x"
