"""Networks of timm as backbones (pip install 'dense_kd[timm]').

Of another network, the images are those of `**timm_normalisation(name)` (dense_kd.detectors).
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN

from dense_kd.detectors import TimmBackbone

from .backbones import IN_FEATURES, fpn

# The images that the ImageNet weights of EfficientNet-Lite expect.
EFFICIENTNET_LITE_INPUT = dict(pixel_mean=[127.5] * 3, pixel_std=[127.5] * 3, input_format="RGB")


def timm_fpn(name, norm="FrozenBN", freeze_at=2, options=None, **fpn_options):
    """P3 to P7 of any network of timm with feature maps; P6 comes from P5.

    name: such as "resnet50", see timm.list_models().
    norm: "BN" for networks without batch norms.
    freeze_at: 0 for networks without a feature map of stride 4.
    options: further ones of timm.create_model, as dict(drop_path_rate=0.1).
    """
    bottom_up = L(TimmBackbone)(
        name=name, norm=norm, freeze_at=freeze_at, out_features=IN_FEATURES, options=options
    )
    return fpn(bottom_up, None, "p5", **fpn_options)


def small_timm_fpn(name, channels, norm="BN", freeze_at=0):
    """P3 to P5 alone, with `channels` each."""
    return L(FPN)(
        bottom_up=L(TimmBackbone)(
            name=name, norm=norm, freeze_at=freeze_at, out_features=IN_FEATURES
        ),
        in_features=IN_FEATURES,
        out_channels=channels,
    )
