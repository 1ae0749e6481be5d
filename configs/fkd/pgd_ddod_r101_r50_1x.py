"""FKD in PGD's recipe, PGD, Table 1, DDOD R101 to R50, 1x: 42.0 -> 43.6 AP. The student inherits
FPN and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FKD, MethodSet

from ..pgd.ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(fkd=L(FKD)())
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/fkd/pgd_ddod_r101_r50_1x"
