"""Images to detect on, from files, PIL and arrays, as training reads those of a dataset."""

from __future__ import annotations

import os
from typing import Any, Union

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy, read_image
from PIL import Image, ImageOps, UnidentifiedImageError

from ..data.folders.images import lost_depth, turned_twice
from .errors import ImageError

ImageInput = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]
"""A path, a picture of PIL, or an array (H, W, 3), (H, W, 1) or (H, W) of uint8."""

ARRAY_FORMATS = ("BGR", "RGB")


def file_name_of(image: ImageInput) -> str | None:
    """Its path, or that of the file that PIL has opened; None if there is none."""
    if isinstance(image, Image.Image):
        return getattr(image, "filename", None) or None
    return None if isinstance(image, np.ndarray) else os.fspath(image)


def pixels_of(image: ImageInput, image_format: str, array_format: str) -> np.ndarray:
    """(H, W, C) of an image, turned as its EXIF orientation says.

    Args:
        image: any mode of PIL; of several frames, the first.
        image_format: of the result, as for ``detectron2.data.detection_utils.read_image``, which
            training reads images with.
        array_format: the channels of ``image`` if it is an array: "BGR" or "RGB".

    Raises:
        ImageError: there is no such file, it cannot be read, has pixels that do not fit into 8
            bits, is a TIFF that training would turn twice, or ``image`` is no image.
    """
    if isinstance(image, np.ndarray):
        image = _of_array(image, array_format)
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        raise ImageError(
            f"an image is a {type(image).__module__}.{type(image).__name__}; expected a path, a "
            "picture of PIL or a numpy array (H, W, 3) of uint8"
        )
    name = file_name_of(image)
    try:
        if isinstance(image, Image.Image):
            _check_depth(image, name)
            return convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)
        path = os.fspath(image)
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise ImageError(f"{path}: it is not a file, expected an image")  # a pipe would wait
        with Image.open(path) as opened:  # its header
            twice = turned_twice(opened)
            if twice:
                raise ImageError(f"{name} {twice}")
            _check_depth(opened, name)
        return read_image(path, image_format)
    except ImageError:
        raise
    except Exception as error:  # a damaged file gives many kinds
        raise ImageError(f"{name or 'a picture of PIL'}: {_reason(error, name)}") from error


def _check_depth(image: Image.Image, name: str | None) -> None:
    lost = lost_depth(image)
    if lost:
        raise ImageError(f"{name or 'a picture of PIL'} {lost}")


def _reason(error: Exception, name: str | None) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, expected an image"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image that PIL can read"
    return f"it cannot be read as an image ({type(error).__name__}: {error})"


def _of_array(array: np.ndarray, array_format: str) -> Image.Image:
    hint = ""
    if array.dtype != np.uint8:
        if array.dtype.kind == "f":
            hint = "; of floats from 0 to 1 it is (255 * array).round().astype(numpy.uint8)"
    elif array.size and array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return Image.fromarray(array.reshape(array.shape[:2]))
    elif array.size and array.ndim == 3 and array.shape[2] == 3:
        rgb = array[:, :, ::-1] if array_format == "BGR" else array
        return Image.fromarray(np.ascontiguousarray(rgb))
    elif array.ndim == 3 and array.shape[2] == 4:
        hint = "; drop the fourth channel (transparency): array[:, :, :3]"
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        hint = "; it looks like (C, H, W): array.transpose(1, 2, 0)"
    raise ImageError(
        f"an array has the shape {array.shape} and dtype {array.dtype}; expected (H, W, 3), "
        f"{array_format}, or grey (H, W), of numpy.uint8{hint}"
    )


def as_input(pixels: np.ndarray, augmentations: list[T.Augmentation]) -> dict[str, Any]:
    """What detectron2's models take, see its tutorial "Use Models".

    Args:
        pixels: (H, W, C) in the format of the detector.
        augmentations: called as ``detectron2.data.DatasetMapper`` does.
    """
    image = T.AugInput(pixels)
    T.AugmentationList(augmentations)(image)
    tensor = torch.as_tensor(np.ascontiguousarray(image.image.transpose(2, 0, 1)))
    return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}
