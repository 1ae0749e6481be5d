"""TID, Table 5, weak areas alone, GFL R101 to R50, 1x: 40.1 -> 41.8 AP (the table's heading names a
ResNeXt-101 as teacher, the text R101)."""

from .gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.tid.areas = "weak"

train.output_dir = "output/tid/gfl_r101_r50_weak_1x"
