"""PKD on the third block of both towers, CrossKD, Table 2, GFL R50 to R18, 1x: 35.8 -> 37.3 AP. The
weight is that of CrossKD + PKD; the paper does not name it."""

from .gfl_r50_r18_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.pkd.taps = [("cls", 3), ("bbox", 3)]

train.output_dir = "output/pkd/gfl_r50_r18_towers_1x"
