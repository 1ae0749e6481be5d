"""DeFeat in PGD's recipe, PGD, Table 3, DDOD R101 to R50 on CrowdHuman, 1x: 88.0 -> 89.1 AP, MR
46.0 -> 44.2, JI 79.0 -> 79.9. Weights are its own, as on COCO. The student inherits FPN and head as
in PGD's own; the paper does not say."""

from detectron2.config import LazyCall as L

from dense_kd import DeFeat, MethodSet

from ..pgd.crowdhuman_ddod_r101_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.methods = L(MethodSet)(defeat=L(DeFeat)())
model.targets_from_teacher = False  # PGD's

train.output_dir = "output/defeat/crowdhuman_ddod_r101_r50_1x"
