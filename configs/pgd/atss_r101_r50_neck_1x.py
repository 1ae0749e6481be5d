"""PGD, Table 7, the class branch's loss on the pyramid alone, ATSS R101 to R50, 1x: 39.6 -> 43.6
AP. Corrected, with four times the released alpha."""

from .atss_r101_r50_k30_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods.pgd.branches = ("neck",)

train.output_dir = "output/pgd/atss_r101_r50_neck_1x"
