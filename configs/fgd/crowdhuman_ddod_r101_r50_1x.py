"""FGD in PGD's recipe, PGD, Table 3, DDOD R101 to R50 on CrowdHuman, 1x: 88.0 -> 89.3 AP, MR 46.0
-> 43.1, JI 79.0 -> 80.4. Weights are those for GFL, as on COCO. The student inherits FPN and head
as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, MethodSet

from ..pgd.crowdhuman_ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(
    fgd=L(FGD)(
        fg_weight=1e-3, bg_weight=5e-4, attention_weight=5e-4, relation_weight=5e-6, temperature=0.5
    )
)
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/fgd/crowdhuman_ddod_r101_r50_1x"
