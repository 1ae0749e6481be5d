"""CrossKD, Table 3, class term alone, GFL R50 to R18, 1x: 35.8 -> 37.7 AP."""

from .gfl_r50_r18_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.crosskd.loc_weight = 0.0

train.output_dir = "output/crosskd/gfl_r50_r18_cls_1x"
