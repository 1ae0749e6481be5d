"""A teacher that is no detector: a frozen network that gives features of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import load_part
from .detectors.base.images import CHANNELS, ImageInput, check_convertible, image_input
from .options import check_choices, check_counts
from .teacher import PRECISIONS, in_precision

_PROBE = (64, 96)
"""(height, width) at least, of the image that shows what a network gives; they differ, so that axes
are told."""


class FeatureTeacher:
    """A frozen network beside the model, whose features a student learns from.

    Any module that gives, for images (N, 3, H, W), one map (N, C, H', W') or the tokens (N, T, C)
    of a vision transformer: a backbone of this project, a network of timm, DINOv2 from its file.
    It is held by the method that reads it (:class:`dense_kd.methods.DSI`), beside any teacher that
    is a detector or without one.

    As :class:`.Teacher` it is a plain object and no ``nn.Module``, so it is in no state dict,
    optimizer, DDP bucket or EMA copy. It is always in eval mode, its parameters never require
    gradient, it follows the device of the images, and its file is read before the first training
    step.

    It sees the batch of the student, padded as that is, in its own normalisation; where the sides
    are no multiples of ``size_divisibility``, the whole batch is resized bilinearly to the next
    ones, so that its map covers what the student's maps cover.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: str | None,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
        size_divisibility: int = 1,
        output: str | int | None = None,
        prefix_tokens: int = 0,
        precision: str = "float32",
    ):
        """
        Args:
            model: the network.
            weights: its checkpoint, for :func:`dense_kd.checkpoint.load_part`, which may hold more
                than the network; None if ``model`` holds its trained parameters already.
            pixel_mean, pixel_std: of its images, for pixels from 0 to 255, per channel.
            input_format: of its images, "RGB" or "BGR".
            size_divisibility: what the sides of its images are multiples of: its largest stride, or
                of a network that gives tokens, the side of a patch.
            output: which of its outputs, if it gives a mapping (a name) or several (a number).
            prefix_tokens: how many of its tokens stand before those of the patches, such as that of
                the class and registers.
            precision: "float32", "bfloat16" or "float16" to run it in.

        Raises:
            TypeError, ValueError: an argument is none of these, or the network gives something else
                for an image.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"the model of FeatureTeacher is a {type(model).__module__}."
                f"{type(model).__name__}, expected an nn.Module that gives features of images"
            )
        if weights == "":
            raise ValueError(
                "the feature teacher has no weights (weights=''), so the student would learn from "
                "noise; give its checkpoint"
            )
        check_counts(at_least=1, size_divisibility=size_divisibility)
        check_counts(at_least=0, prefix_tokens=prefix_tokens)
        check_choices(("precision", precision, tuple(PRECISIONS)))
        self.image_input = image_input(input_format, pixel_mean, pixel_std, cast(Any, model))
        check_convertible("RGB", self.image_input.input_format)
        self.model = model.eval().requires_grad_(False)
        self.weights = weights
        self.size_divisibility = size_divisibility
        self.output = output
        self.prefix_tokens = prefix_tokens
        self.precision = precision
        self.loaded = weights is None
        self._device: torch.device | None = None
        self._affine: dict[tuple[ImageInput, torch.device], tuple[Tensor, Tensor]] = {}
        self.channels = self._probed().shape[1]

    def load(self) -> None:
        """Read the weights, strictly, unless that is done.

        Raises:
            CheckpointError: see :func:`dense_kd.checkpoint.load_part`.
        """
        if not self.loaded and self.weights is not None:
            load_part(self.model, self.weights)
            self.loaded = True

    @torch.no_grad()
    def run(self, images: Tensor, seen_as: ImageInput) -> Tensor:
        """(N, C, H', W'), in float32.

        Args:
            images: (N, C', H, W), the batch that the student's backbone gets.
            seen_as: how the student has made it of its images.
        """
        self.load()
        if self._device != images.device:
            self.model.to(images.device)
            self._device = images.device
        self.model.eval()
        return self._map(self._own(images.float(), seen_as))

    def _map(self, images: Tensor) -> Tensor:
        with in_precision(images.device, self.precision):
            found = self._chosen(self.model(images))
        if found.dim() == 3:
            height, width = (side // self.size_divisibility for side in images.shape[-2:])
            expected = self.prefix_tokens + height * width
            if found.shape[1] != expected:
                raise ValueError(
                    f"the network gives {found.shape[1]} tokens for an image of "
                    f"{images.shape[-2]} x {images.shape[-1]} pixels, expected {expected}: "
                    f"prefix_tokens={self.prefix_tokens}, and one for each patch of "
                    f"size_divisibility={self.size_divisibility} pixels; correct these two"
                )
            patches = found[:, self.prefix_tokens :]
            found = patches.transpose(1, 2).unflatten(2, (height, width))
        return found.float()

    def _chosen(self, found: Any) -> Tensor:
        """The one output, (N, C, H', W') or (N, T, C)."""
        outputs: Mapping[Any, Any] | None = None
        if isinstance(found, Mapping):
            outputs = found
        elif isinstance(found, (list, tuple)):
            outputs = dict(enumerate(found))
        if outputs is not None:
            key = next(iter(outputs)) if self.output is None and len(outputs) == 1 else self.output
            if key not in outputs:
                raise ValueError(
                    f"output={self.output!r}: the network gives {list(outputs)}; name one of these"
                )
            found = outputs[key]
        elif self.output is not None:
            raise ValueError(
                f"output={self.output!r}, but the network gives one output, which has no name; "
                "leave output out"
            )
        if not isinstance(found, Tensor) or found.dim() not in (3, 4):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"the network gives {shape} for images; expected one map (N, C, H, W), or tokens "
                "(N, T, C)"
            )
        return found

    def _own(self, images: Tensor, seen_as: ImageInput) -> Tensor:
        """(N, 3, H, W): the student's batch, as the network is used to it."""
        if seen_as != self.image_input:
            if seen_as.input_format != self.image_input.input_format:
                images = images.flip(1)
            factor, offset = self._conversion(seen_as, images.device)
            images = images * factor + offset
        multiple = self.size_divisibility
        size = [-(-side // multiple) * multiple for side in images.shape[-2:]]
        if size != [*images.shape[-2:]]:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return images

    def _conversion(self, seen_as: ImageInput, device: torch.device) -> tuple[Tensor, Tensor]:
        """(3, 1, 1) both: pixels that the student has normalised times and plus them are ours."""
        if (seen_as, device) not in self._affine:
            own = self.image_input
            step = 1 if seen_as.input_format == own.input_format else -1
            mean, std, own_mean, own_std = (
                torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
                for values in (seen_as.mean[::step], seen_as.std[::step], own.mean, own.std)
            )
            self._affine[seen_as, device] = (
                (std / own_std).to(device, torch.float32),
                ((mean - own_mean) / own_std).to(device, torch.float32),
            )
        return self._affine[seen_as, device]

    @torch.no_grad()
    def _probed(self) -> Tensor:
        """The map of an image without content."""
        multiple = self.size_divisibility
        height, width = (-(-side // multiple) * multiple for side in _PROBE)
        first = next(self.model.parameters(), torch.zeros(()))
        image = first.new_zeros(1, CHANNELS[self.image_input.input_format], height, width)
        try:
            found = self._map(image)
        except ValueError:
            raise
        except Exception as error:  # networks of one size refuse others in many ways
            raise ValueError(
                f"{type(self.model).__name__} cannot be run on an image of {height} x {width} "
                f"pixels ({error}); expected a network for images of any size whose sides are "
                f"multiples of size_divisibility={multiple}"
            ) from error
        rows, columns = found.shape[-2:]
        if not (rows < columns and rows * width == columns * height):
            raise ValueError(
                f"{type(self.model).__name__} makes {tuple(found.shape)} of an image of {height} x "
                f"{width} pixels, expected a map (N, C, H, W) with sides in proportion"
            )
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureTeacher:
        return self

    def __repr__(self) -> str:
        return f"FeatureTeacher({type(self.model).__name__}, weights={self.weights!r})"
