"""FGD in PGD's recipe, PGD, Table 4, self-distillation of ATSS R50, 1x: 39.6 -> 40.2 AP. The
weights are FGD's for GFL."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, MethodSet

from ..pgd.atss_r50_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(
    fgd=L(FGD)(
        fg_weight=1e-3, bg_weight=5e-4, attention_weight=5e-4, relation_weight=5e-6, temperature=0.5
    )
)

train.output_dir = "output/fgd/pgd_atss_r50_r50_1x"
