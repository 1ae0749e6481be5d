"""LD's class term alone, BCKD, Table 3, GFL R101 to R50, 1x: 40.1 -> 40.4 AP."""

from .gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.ld.main_weight = 0.0
model.methods.ld.vlr_weight = 0.0

train.output_dir = "output/ld/gfl_r101_r50_cls_1x"
