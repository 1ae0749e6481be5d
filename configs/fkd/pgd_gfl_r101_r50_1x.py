"""FKD in PGD's recipe, PGD, Table 1, GFL R101 to R50, 1x: 40.2 -> 43.1 AP. The student inherits FPN
and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FKD, MethodSet

from ..pgd.gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(fkd=L(FKD)())

train.output_dir = "output/fkd/pgd_gfl_r101_r50_1x"
