"""Images on their way into a detector: what one accepts, and how it is given another one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.modeling import Backbone
from torch import Tensor, nn

CHANNELS = {"BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3}
"""The formats of detectron2's ``INPUT.FORMAT``, and how many channels they have."""

_COLOURS = ("BGR", "RGB")
# Those that give float32 when a float32 mean is subtracted; the others become that before.
_SUBTRACTED = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32)
_DTYPES = (
    *_SUBTRACTED,
    torch.float64, torch.float16, torch.bfloat16,
    *(getattr(torch, name) for name in ("uint16",) if hasattr(torch, name)),  # since torch 2.3
)  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """How a detector takes its images; two that are equal make the same of a batch.

    Attributes:
        input_format: one of :data:`CHANNELS`.
        mean, std: of the pixels, per channel.
    """

    input_format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_channels(self) -> int:
        """C of an image in ``input_format``."""
        return CHANNELS[self.input_format]

    @property
    def is_of_bytes(self) -> bool:
        """Whether ``mean`` and ``std`` can only be those of images from 0 to 255."""
        largest = max(*self.mean, *self.std)
        return largest > 1 and max(self.mean) <= 255 and max(self.std) <= 127.5

    @property
    def is_of_units(self) -> bool:
        """Whether ``mean`` and ``std`` can only be those of images from 0 to 1."""
        return all(0 < value < 1 for value in (*self.mean, *self.std))


def image_input(
    input_format: str, pixel_mean: Sequence[float], pixel_std: Sequence[float], backbone: Backbone
) -> ImageInput:
    """The input of a detector, checked.

    Args:
        input_format: one of :data:`CHANNELS`, in small letters too.
        pixel_mean, pixel_std: per channel.
        backbone: whose first convolution takes the images.

    Raises:
        ValueError: the format is unknown, or the others do not fit it.
    """
    known = input_format.upper() if isinstance(input_format, str) else input_format
    if known not in CHANNELS:
        raise ValueError(f"input_format={input_format!r}: expected one of {tuple(CHANNELS)}")
    given = ImageInput(known, tuple(map(float, pixel_mean)), tuple(map(float, pixel_std)))
    for name, values in (("pixel_mean", given.mean), ("pixel_std", given.std)):
        if len(values) != given.num_channels or not np.isfinite(values).all():
            raise ValueError(
                f"{name}={list(values)}: expected {given.num_channels} finite number(s), one for "
                f"each channel of input_format={known!r}"
            )
    if min(given.std) <= 0:
        raise ValueError(f"pixel_std={list(given.std)}: expected numbers above 0")
    body = getattr(backbone, "bottom_up", backbone)  # an FPN lists its own convolutions first
    first = next((m for m in body.modules() if isinstance(m, nn.Conv2d)), None)
    # A stem may fold pixels into many channels; one that takes 1 or 3 takes the image itself.
    if first is not None and first.in_channels in (1, 3):
        if first.in_channels != given.num_channels:
            raise ValueError(
                f"input_format={known!r} has {given.num_channels} channel(s), and the first "
                f"convolution of the backbone takes {first.in_channels}; make the two agree"
            )
    return given


def checked_images(
    batched_inputs: list[dict[str, Any]], expected: ImageInput, backbone: Backbone
) -> list[Tensor]:
    """The images of a batch, each (C, H, W) as it came, or (1, H, W): grey in all channels.

    Types and shapes are looked at wherever an image lies; pixels only on the CPU, where that waits
    for nothing, and not those of bytes, which can hold nothing wrong.

    Args:
        batched_inputs: N dicts of detectron2's DatasetMapper.
        expected: of the detector.
        backbone: which says to what the batch is padded.

    Raises:
        ValueError: it names the image, what it is and what was expected.
    """
    if torch.jit.is_tracing():
        return [inputs["image"] for inputs in batched_inputs]
    check_batch(batched_inputs)
    _, square = padding(backbone)
    images = []
    for index, inputs in enumerate(batched_inputs):
        name = f"image {inputs.get('file_name', f'number {index} of the batch')}"
        image = _checked(inputs.get("image"), name, expected)
        if square and max(image.shape[1:]) > square:
            raise ValueError(
                f"{name} has the sides {tuple(image.shape[1:])}, and the backbone pads a batch to "
                f"{square} x {square}; resize images to that before"
            )
        images.append(image)
    return images


def check_batch(batched_inputs: list[dict[str, Any]]) -> None:
    """Raise ValueError unless a batch is a list of dicts, and of one at least."""
    is_list = isinstance(batched_inputs, Sequence)
    if is_list and len(batched_inputs) == 0:
        raise ValueError("the batch holds no image, expected at least one")
    for item in batched_inputs if is_list else [batched_inputs]:
        if not (is_list and isinstance(item, Mapping)):
            raise ValueError(
                f"the batch {'holds' if is_list else 'is'} a {type(item).__module__}."
                f"{type(item).__name__}; expected a list of dicts as detectron2's DatasetMapper "
                "gives them, each with an 'image'"
            )


def _checked(image: Any, name: str, expected: ImageInput) -> Tensor:
    channels, input_format = expected.num_channels, expected.input_format
    wanted = f"a tensor (C, H, W) with {channels} channel(s), {input_format}"
    if not isinstance(image, Tensor):
        found = "None" if image is None else f"a {type(image).__module__}.{type(image).__name__}"
        raise ValueError(
            f"{name} is {found}, expected {wanted}; of an array (H, W, C) it is "
            "torch.as_tensor(array.transpose(2, 0, 1).copy())"
        )
    shape = tuple(image.shape)
    is_grey = shape[:1] == (1,) and input_format != "YUV-BT.601"
    if len(shape) != 3 or 0 in shape or not (shape[0] == channels or is_grey):
        hint = ""
        if len(shape) == 3 and shape[2] == channels:
            hint = "; it looks like (H, W, C): use image.permute(2, 0, 1)"
        elif len(shape) == 3 and shape[0] == 4:
            hint = "; drop the fourth channel (transparency), as detectron2's read_image does"
        raise ValueError(f"{name} has the shape {shape}, expected {wanted}{hint}")
    if image.dtype not in _DTYPES:
        raise ValueError(f"{name} has the dtype {image.dtype}, expected torch.uint8, or one wider")
    if image.dtype == torch.uint8:
        if expected.is_of_units:
            raise ValueError(
                f"{name} has the dtype torch.uint8 and so goes from 0 to 255, but pixel_mean="
                f"{list(expected.mean)} and pixel_std={list(expected.std)} are of images from 0 "
                "to 1; multiply these by 255"
            )
        return image
    if image.dtype not in _SUBTRACTED:
        image = image.float()
    if image.device.type == "cpu":
        _check_pixels(image, name, expected)
    return image


def _check_pixels(image: Tensor, name: str, expected: ImageInput) -> None:
    low, high = (value.item() for value in image.aminmax())
    if not np.isfinite((low, high)).all():
        raise ValueError(f"{name} has pixels that are not finite; correct what makes them")
    if not expected.is_of_bytes:
        return
    found = None
    if high > 2 * 255:  # interpolation may overshoot, by less than that
        found = f"goes up to {high:g}"
    elif image.is_floating_point() and 0 < max(-low, high) <= (1 if low >= 0 else 10):
        # A black image may hold nothing but 0 and 1.
        if not torch.equal(image, image.round()):
            found = f"goes from {low:g} to {high:g}"
    if found:
        raise ValueError(
            f"{name} {found}, but pixel_mean={list(expected.mean)} and pixel_std="
            f"{list(expected.std)} are of images from 0 to 255; scale the images, or give the "
            "mean and deviation of such images"
        )


def check_convertible(source: str, target: str) -> None:
    """Raise ValueError unless :func:`converted` makes images of ``target`` from ``source``."""
    if source != target and not (source in (*_COLOURS, "L") and target in _COLOURS):
        raise ValueError(
            f"images of the input_format {source!r} cannot be converted to {target!r}; BGR, RGB "
            "and L (grey) can be converted to BGR and RGB. Give both one input_format"
        )


def converted(
    batched_inputs: list[dict[str, Any]], source: str, target: str
) -> list[dict[str, Any]]:
    """The batch with its images in ``target`` instead of ``source``, see :data:`CHANNELS`."""
    check_convertible(source, target)
    if source == target:
        return batched_inputs
    # Grey is grey in every channel, so the detector's mean spreads it; the others are each other's
    # reverse.
    if source == "L":
        return batched_inputs
    return [{**x, "image": torch.flip(x["image"], (0,))} for x in batched_inputs]


def padding(backbone: Backbone) -> tuple[int, int]:
    """(what the sides of a batch are multiples of, side of the square it is padded to or 0)."""
    constraints = getattr(backbone, "padding_constraints", None) or {}
    divisibility = constraints.get("size_divisibility", backbone.size_divisibility)
    return max(divisibility, 1), max(constraints.get("square_size", 0), 0)


def as_rgb(image: Tensor, input_format: str) -> np.ndarray:
    """(H, W, 3) uint8 to look at, of an image (C, H, W)."""
    pixels = image.expand(CHANNELS[input_format], -1, -1).permute(1, 2, 0).cpu()
    if input_format != "YUV-BT.601":  # which goes from 0 to 1
        pixels = pixels.float().clamp(0, 255).to(torch.uint8)
    return np.clip(convert_image_to_rgb(pixels.numpy(), input_format), 0, 255).astype(np.uint8)
