"""PGD, Table 6a, the 60 best locations of each object, ATSS R101 to R50, 1x: 39.6 -> 43.9 AP.
Corrected, with four times the released alpha."""

from .atss_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.pgd.topk = 60

train.output_dir = "output/pgd/atss_r101_r50_k60_1x"
