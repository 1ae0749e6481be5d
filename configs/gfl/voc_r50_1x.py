"""GFL R50 on Pascal VOC, 12 epochs of both trainval sets. TID (Table 2) has 76.4 mAP for its
student, without a name or a recipe; ours is that of COCO at the scale that is usual for VOC."""

from ..common.data.voc import dataloader
from ..common.models.gfl import gfl
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.optim import mmdet_SGD as optimizer
from ..common.schedule import step_schedule
from ..common.train import train

model = gfl(mmdet_resnet_fpn(50))
model.num_classes = 20

lr_multiplier = step_schedule(12413, [8275, 11379], warmup_length=500)

train.max_iter = 12413
train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/gfl/voc_r50_1x"
