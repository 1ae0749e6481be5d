"""FGD in PGD's recipe, PGD, Table 2, ATSS R101 to MobileNetV2, 1x: 33.5 -> 35.8 AP. The weights are
FGD's for GFL."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, MethodSet

from ..pgd.atss_r101_mobilenetv2_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(
    fgd=L(FGD)(
        fg_weight=1e-3, bg_weight=5e-4, attention_weight=5e-4, relation_weight=5e-6, temperature=0.5
    )
)

train.output_dir = "output/fgd/pgd_atss_r101_mobilenetv2_1x"
