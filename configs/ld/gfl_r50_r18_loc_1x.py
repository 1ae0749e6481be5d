"""LD's localisation terms alone, CrossKD, Table 3, GFL R50 to R18, 1x: 35.8 -> 36.8 AP. Its weights
are for 2 images per process: 8 x 2."""

from .gfl_r50_r18_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.ld.cls_weight = 0.0

train.output_dir = "output/ld/gfl_r50_r18_loc_1x"
