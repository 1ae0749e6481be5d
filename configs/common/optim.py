"""Optimizers."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from dense_kd.engine.optimizer import layer_bias_params

# The recipe of every dense detector in the papers: 0.01 for a batch of 16.
SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)

# mmdetection's, with weight decay on the factors of norms, too.
mmdet_SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)

# mmdetection's for FCOS: biases of convolutions learn twice as fast, without decay. What norms add
# learns and decays as the other weights.
mmdet_fcos_SGD = L(torch.optim.SGD)(
    params=L(layer_bias_params)(base_lr="${..lr}", bias_lr_factor=2.0, weight_decay_bias=0.0),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)

AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=2e-3,
    weight_decay=1e-4,
)
