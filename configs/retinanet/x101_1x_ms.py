"""RetinaNet X101-64x4d, 12 epochs, short side 640 to 800: detectron2's recipe with a larger
backbone. We have no AP of it. BCKD's Table 2 has the teacher of mmdet_x101_1x.py, not this one."""

from ..common.models.retinanet import retinanet_x101
from .r50_1x_ms import dataloader, lr_multiplier, optimizer, train

model = retinanet_x101()

dataloader.train.mapper.image_format = "RGB"
dataloader.test.mapper.image_format = "RGB"

train.init_checkpoint = "torchvision://resnext101_64x4d"
train.output_dir = "output/retinanet/x101_1x_ms"
