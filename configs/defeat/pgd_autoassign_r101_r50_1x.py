"""DeFeat in PGD's recipe, AutoAssign R101 to R50, 1x: 40.6 AP without it. PGD's Table 1 compares
such runs with PGD; we have no AP of this one."""

from detectron2.config import LazyCall as L

from dense_kd import DeFeat, MethodSet

from ..pgd.autoassign_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(defeat=L(DeFeat)())

train.output_dir = "output/defeat/pgd_autoassign_r101_r50_1x"
