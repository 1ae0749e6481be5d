"""FRS in PGD's recipe, PGD, Table 3, DDOD R101 to R50 on CrowdHuman, 1x: 88.0 -> 89.2 AP, MR 46.0
-> 44.1, JI 79.0 -> 80.3. Weights are those for GFL, as on COCO. The student inherits FPN and head
as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FRS, MethodSet

from ..pgd.crowdhuman_ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(frs=L(FRS)(feature_weight=0.1, cls_weight=0.05))
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/frs/crowdhuman_ddod_r101_r50_1x"
