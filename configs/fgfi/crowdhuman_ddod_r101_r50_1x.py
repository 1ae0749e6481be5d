"""FGFI in PGD's recipe, PGD, Table 3, DDOD R101 to R50 on CrowdHuman, 1x: 88.0 -> 89.2 AP, MR 46.0
-> 43.8, JI 79.0 -> 80.3. Levels and weight are those of LD's code, as on COCO. The student inherits
FPN and head as in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import FGFI, MethodSet

from ..pgd.crowdhuman_ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(fgfi=L(FGFI)(weight=20.0, levels="each"))
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/fgfi/crowdhuman_ddod_r101_r50_1x"
