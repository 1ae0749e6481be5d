"""TID, Table 4, the IoU as localisation score, GFL R101 to R50, 1x: 40.9 AP (42.0 with its
thresholds)."""

from .gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.tid.loc_score = "iou"

train.output_dir = "output/tid/gfl_r101_r50_iou_1x"
