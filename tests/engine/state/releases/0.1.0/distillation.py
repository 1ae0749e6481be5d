"""RetinaNet from a deeper one: inheriting, a warm-up, adapters, generators, biases apart, SGD."""

import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from dense_kd import BCKD, MGD, Distiller, FitNet, MethodSet, RetinaNet, Teacher
from dense_kd.detectors import TowerHead
from dense_kd.engine.optimizer import layer_bias_params

from .common import backbone, dataloader, input_shape, lr_multiplier, train


def retinanet(depth):
    return L(RetinaNet)(
        backbone=backbone(),
        head=L(TowerHead)(
            input_shape=input_shape,
            num_classes="${..num_classes}",
            num_anchors=3,
            conv_dims=[4] * depth,
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[16.0], [32.0]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16], offset=0.0
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        head_in_features=["p3", "p4"],
        num_classes=5,
        pixel_mean=[127.5, 127.5, 127.5],
        pixel_std=[64.0, 64.0, 64.0],
    )


model = L(Distiller)(
    student=retinanet(1),
    teacher=L(Teacher)(model=retinanet(2), weights="teacher.pth"),
    methods=L(MethodSet)(
        bckd=L(BCKD)(cls_weight=4.0, loc_weight=4.0, warmup_iters=7),
        mgd=L(MGD)(weight=1e-3, masked_ratio=0.5),
        fitnet=L(FitNet)(weight=0.5, always_adapt=True),
    ),
    init_student=True,
)
optimizer = L(torch.optim.SGD)(
    params=L(layer_bias_params)(base_lr="${..lr}", bias_lr_factor=2.0, weight_decay_bias=0.0),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
train.accumulate = 2
train.clip_grad = dict(max_norm=5.0, norm_type=2.0)
train.output_dir = "distillation"
