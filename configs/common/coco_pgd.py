"""PGD's recipe of 12 epochs on COCO: batches of 32 (paper), clipped gradients (its code); RGB."""

from .coco_mmdet import dataloader, optimizer, train
from .schedule import pgd_1x as lr_multiplier

dataloader.train.total_batch_size = 32
optimizer.lr = 0.02

train.max_iter = 45000
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
