"""RetinaNet Swin-T, 12 epochs: a teacher of CrossKD's, which has published neither the file nor the
recipe; this is the AdamW recipe of the Swin papers' detectors. We have no AP of it."""

from ..common.models.backbones import swin_t_fpn
from ..common.models.retinanet import mmdet_retinanet
from ..common.optim import swin_AdamW as optimizer
from .mmdet_r50_1x import dataloader, lr_multiplier, train

model = mmdet_retinanet(swin_t_fpn("res5"))

train.init_checkpoint = "torchvision://swin_t"
train.output_dir = "output/retinanet/mmdet_swin_t_1x"
