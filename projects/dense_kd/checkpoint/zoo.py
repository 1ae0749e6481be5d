"""Names for public weights.

=================================== ================================================
``mmdet://gfl_r50_fpn_1x_coco``     a detector of mmdetection's model zoo
``torchvision://resnet50``          a detector or ImageNet backbone of torchvision
``timm://resnet50.a1_in1k``         an ImageNet backbone of timm, see :mod:`.timm_hub`
``package://efficientnet-lite0``    one in an installed package, see :mod:`.packages`
=================================== ================================================

They are known wherever detectron2's PathManager resolves a path: in ``Teacher(weights=...)``,
``train.init_checkpoint`` and detectron2's own scripts. A file is downloaded once into iopath's
cache (``$FVCORE_CACHE``, or ``~/.torch/iopath_cache``) and checked at every use; what the name
resolves to is a file beside it with the same weights under our keys, so that detectron2's
checkpointer reads it, too.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import IO, Any

import torchvision
from detectron2.utils.file_io import PathHandler, PathManager

from . import conversion, packages, timm_hub
from .conversion import convert_file
from .digests import file_digest
from .errors import CheckpointError

MMDET = "https://download.openmmlab.com/mmdetection/v2.0"

# The detectors of mmdetection's model zoo that papers on distillation start from.
_MMDET_FILES = {
    "retinanet_r50_fpn_1x_coco": "retinanet/{0}/{0}_20200130-c2398f9e.pth",
    "retinanet_r50_fpn_2x_coco": "retinanet/{0}/{0}_20200131-fdb43119.pth",
    "retinanet_r101_fpn_1x_coco": "retinanet/{0}/{0}_20200130-7a93545f.pth",
    "retinanet_r101_fpn_2x_coco": "retinanet/{0}/{0}_20200131-5560aee8.pth",
    "retinanet_x101_32x4d_fpn_1x_coco": "retinanet/{0}/{0}_20200130-5c8b7ec4.pth",
    "retinanet_x101_64x4d_fpn_1x_coco": "retinanet/{0}/{0}_20200130-366f5af1.pth",
    "retinanet_x101_64x4d_fpn_mstrain_3x_coco": ("retinanet/{0}/{0}_20210719_051838-022c2187.pth"),
    "fcos_r50_caffe_fpn_gn-head_1x_coco": "fcos/{0}/{0}-821213aa.pth",
    "fcos_r50_caffe_fpn_gn-head_mstrain_640-800_2x_coco": "fcos/{0}/{0}-d92ceeea.pth",
    "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco": (
        "fcos/{0}/{0}-0a0d75a8.pth"
    ),
    "fcos_r101_caffe_fpn_gn-head_1x_coco": "fcos/{0}/{0}-0e37b982.pth",
    "fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco": "fcos/{0}/{0}-511424d6.pth",
    "atss_r50_fpn_1x_coco": "atss/{0}/{0}_20200209-985f7bd0.pth",
    "atss_r101_fpn_1x_coco": "atss/{0}/atss_r101_fpn_1x_20200825-dfcadd6f.pth",
    "gfl_r50_fpn_1x_coco": "gfl/{0}/{0}_20200629_121244-25944287.pth",
    "gfl_r50_fpn_mstrain_2x_coco": "gfl/{0}/{0}_20200629_213802-37bb1edc.pth",
    "gfl_r101_fpn_mstrain_2x_coco": "gfl/{0}/{0}_20200629_200126-dd12f847.pth",
    "ddod_r50_fpn_1x_coco": "ddod/{0}/{0}_20220523_223737-29b2fc67.pth",
    "auto_assign_r50_fpn_1x_coco": "autoassign/{0}/{0}_20210413_115540-5e17991f.pth",
}

MMDET_URLS = {name: f"{MMDET}/{file.format(name)}" for name, file in _MMDET_FILES.items()}
"""{name: URL}; the name is that of the folder, mostly of the config of mmdetection 2."""

TORCHVISION_MODELS = (
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "resnext101_64x4d",
    "mobilenet_v2",
    "swin_t",
)


def _torchvision_urls() -> dict[str, str]:
    urls: dict[str, str] = {}
    for model in TORCHVISION_MODELS:
        for weights in torchvision.models.get_model_weights(model):
            urls.setdefault(model, weights.url)
            urls[f"{model}@{weights.name}"] = weights.url
    return urls


TORCHVISION_URLS = _torchvision_urls()
"""{name: URL} of the installed torchvision's weights.

``<model>@<weights>`` is one of them, as in "resnet50@IMAGENET1K_V2"; ``<model>`` alone is the
first, COCO_V1 or IMAGENET1K_V1, from which the detectors of the papers were trained, even where
torchvision has a better one.
"""


class ZooHandler(PathHandler):
    """Resolves ``<prefix><name>`` to a file that was downloaded and checked."""

    def __init__(self, prefix: str, urls: Mapping[str, str]):
        """
        Args:
            prefix: such as "mmdet://".
            urls: {name: URL}. As torch.hub wants it, the name of the file ends in "-" and the
                first digits of its SHA-256.
        """
        super().__init__()
        self.prefix = prefix
        self.urls = urls

    def _get_supported_prefixes(self) -> list[str]:
        return [self.prefix]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return self.download(path, force=force, **kwargs)

    def download(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """The published file of ``path``, in the cache; ``force`` downloads it again."""
        url = self._url(path)
        try:
            # Downloads under another name while it holds a lock: other processes wait.
            local = PathManager.get_local_path(url, force=force, **kwargs)
        except Exception as error:  # what the transport raises
            raise CheckpointError(
                f"{path} could not be downloaded from {url}: {type(error).__name__}: {error}. "
                "Fetch it where there is a network, and give the path of the file"
            ) from error
        _check_digits(local, url)
        return local

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)

    def _url(self, path: str) -> str:
        name = path[len(self.prefix) :]
        if name in self.urls:
            return self.urls[name]
        near = difflib.get_close_matches(name, self.urls, n=5)
        raise CheckpointError(
            f"there are no weights {path!r}; "
            + (f"did you mean {', '.join(near)}? " if near else "")
            + f"Known after {self.prefix} are {', '.join(self.urls)}"
        )


def _check_digits(local: str, url: str) -> None:
    digits = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    if digits is None:
        raise CheckpointError(
            f"{url} does not end in '-<digits of its SHA-256>.pth', so its file cannot be checked"
        )
    found = file_digest(local)[: len(digits[1])]
    if found != digits[1]:
        raise CheckpointError(
            f"{local}, downloaded from {url}, is not the file that was published: its SHA-256 "
            f"should begin with {digits[1]} and begins with {found}. Delete it to have it "
            "downloaded again; if that does not help and you trust it, give its path instead"
        )


class ConvertingZooHandler(ZooHandler):
    """Resolves a name to what :func:`convert_file` makes of its file."""

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        local = self.download(path, force=force, **kwargs)
        converted = f"{local}.{conversion.CONVERTER}.pth"
        if force or not os.path.isfile(converted):
            convert_file(local, converted)
        return converted


_HANDLERS: dict[str, ZooHandler | packages.PackageHandler] = {
    "mmdet://": ConvertingZooHandler("mmdet://", MMDET_URLS),
    "torchvision://": ConvertingZooHandler("torchvision://", TORCHVISION_URLS),
    packages.PREFIX: packages.PackageHandler(packages.PACKAGES),
}
# Registering again, as a reloaded module does, replaces one.
for handler in (*_HANDLERS.values(), timm_hub.TimmHandler()):
    PathManager.register_handler(handler, allow_override=True)


def published_file(path: str) -> str:
    """The file that a name stands for, as its project published it; other paths as they are."""
    for prefix, handler in _HANDLERS.items():
        if path.startswith(prefix):
            return handler.download(path)
    return path
