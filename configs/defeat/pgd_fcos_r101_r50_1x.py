"""DeFeat in PGD's recipe, PGD, Table 1, FCOS R101 to R50, 1x: 38.2 -> 40.7 AP. The student inherits
FPN and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import DeFeat, MethodSet

from ..pgd.fcos_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(defeat=L(DeFeat)())

train.output_dir = "output/defeat/pgd_fcos_r101_r50_1x"
