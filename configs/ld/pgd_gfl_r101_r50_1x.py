"""LD in PGD's recipe, PGD, Table 1, GFL R101 to R50, 1x: 40.2 -> 43.5 AP. The weights are LD's;
`loss_main` and `loss_vlr` grow with the images of a process: 4 on 8 of them here, 2 in LD's. The
student inherits FPN and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import LD, MethodSet

from ..pgd.gfl_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(ld=L(LD)())

train.output_dir = "output/ld/pgd_gfl_r101_r50_1x"
