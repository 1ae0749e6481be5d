"""DDOD on CrowdHuman, as in PGD's code."""

from .ddod import ddod
from .mmdet_backbones import pgd_resnet_fpn


def crowdhuman_ddod(depth):
    """Nothing of the backbone is fixed but its batch norms, and an image has up to 500 objects."""
    model = ddod(pgd_resnet_fpn(depth, freeze_at=0), cost_rule="pgd", separate_level_counts=True)
    model.num_classes = 1
    model.max_detections_per_image = 500
    return model
