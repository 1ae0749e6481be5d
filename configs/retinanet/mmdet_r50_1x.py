"""RetinaNet R50, 12 epochs: mmdetection's retinanet_r50_fpn_1x_coco (zoo: 36.5 AP)."""

from ..common.coco_mmdet import dataloader, lr_multiplier, optimizer, train
from ..common.models.mmdet_backbones import mmdet_resnet_fpn
from ..common.models.retinanet import mmdet_retinanet

model = mmdet_retinanet(mmdet_resnet_fpn(50, "res5"))

train.init_checkpoint = "torchvision://resnet50"
train.output_dir = "output/retinanet/mmdet_r50_1x"
