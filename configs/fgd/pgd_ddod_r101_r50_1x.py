"""FGD in PGD's recipe, PGD, Table 1, DDOD R101 to R50, 1x: 42.0 -> 44.1 AP. The weights are FGD's
for GFL."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, MethodSet

from ..pgd.ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(
    fgd=L(FGD)(
        fg_weight=1e-3, bg_weight=5e-4, attention_weight=5e-4, relation_weight=5e-6, temperature=0.5
    )
)
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/fgd/pgd_ddod_r101_r50_1x"
