"""LD's class term alone, CrossKD, Table 3, GFL R50 to R18, 1x: 35.8 -> 37.3 AP."""

from .gfl_r50_r18_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.ld.main_weight = 0.0
model.methods.ld.vlr_weight = 0.0

train.output_dir = "output/ld/gfl_r50_r18_cls_1x"
