"""FKD in PGD's recipe, PGD, Table 1, FCOS R101 to R50, 1x: 38.2 -> 41.3 AP. The student inherits
FPN and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FKD, MethodSet

from ..pgd.fcos_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(fkd=L(FKD)())

train.output_dir = "output/fkd/pgd_fcos_r101_r50_1x"
