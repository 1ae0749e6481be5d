"""Images on their way into a detector: taken where that is right, else refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image

from dense_kd.detectors.base.images import CHANNELS, as_rgb, converted, image_input, padding
from helpers.builders import (
    batch,
    randomized,
    tiny_atss,
    tiny_autoassign,
    tiny_backbone,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

DETECTORS = [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl, tiny_ddod, tiny_autoassign]
UNITS = {"pixel_mean": [0.4, 0.45, 0.5], "pixel_std": [0.2, 0.2, 0.2]}


def with_images(change, seed: int = 0) -> list[dict]:
    inputs = batch(seed=seed)
    return [inputs[0], {**inputs[1], "image": change(inputs[1]["image"])}]


def grey():
    backbone = L(tiny_backbone)(in_channels=1)
    return tiny_fcos(input_format="L", pixel_mean=[110.0], pixel_std=[58.0], backbone=backbone)


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.parametrize("wrong", ["BRG", "", "RGBA", "I;16", "YUV", None, 3])
def test_a_format_that_is_none_of_detectron2s_is_refused_when_the_detector_is_built(make, wrong):
    with pytest.raises(ValueError, match=r"input_format=.*expected one of .*'BGR', 'RGB', 'L'"):
        make(input_format=wrong)


def test_small_letters_are_the_same_format():
    assert tiny_fcos(input_format="bgr").image_input == tiny_fcos().image_input
    assert tiny_fcos(input_format="rgb").input_format == "RGB"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pixel_mean": [127.5]}, r"pixel_mean=\[127.5\]: expected 3 finite"),
        ({"pixel_std": [1.0] * 4}, "pixel_std=.*expected 3 finite"),
        ({"pixel_mean": [float("nan")] * 3}, "pixel_mean=.*finite"),
        ({"pixel_std": [1.0, 0.0, 1.0]}, "pixel_std=.*above 0"),
        ({"input_format": "L"}, "pixel_mean=.*expected 1 finite"),
        (
            {"input_format": "L", "pixel_mean": [110.0], "pixel_std": [58.0]},
            "first convolution of the backbone takes 3",
        ),
    ],
)
def test_a_mean_that_does_not_fit_the_format_or_the_backbone_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_fcos(**options)


WRONG = {
    "transparency": (lambda x: torch.cat((x, x[:1])), "(4, 80, 72)", "fourth channel"),
    "two channels": (lambda x: x[:2], "(2, 80, 72)", "3 channel"),
    "height width channels": (lambda x: x.permute(1, 2, 0), "(80, 72, 3)", "permute(2, 0, 1)"),
    "no channel": (lambda x: x[0], "(80, 72)", "(C, H, W)"),
    "a batch": (lambda x: x[None], "(1, 3, 80, 72)", "(C, H, W)"),
    "no pixel": (lambda x: x[:, :0], "(3, 0, 72)", "(C, H, W)"),
    "an array": (lambda x: x.numpy(), "numpy.ndarray", "torch.as_tensor"),
    "nothing": (lambda x: None, "None", "a tensor"),
    "a mask": (lambda x: x > 100, "torch.bool", "torch.uint8"),
    "signed bytes": (lambda x: x.to(torch.int8), "torch.int8", "torch.uint8"),
    "units": (lambda x: x / 255, "goes from 0 to 1", "0 to 255"),
    "units of double": (lambda x: x.double() / 255, "goes from 0 to 1", "0 to 255"),
    "normalised": (lambda x: (x.float() - 110) / 58, "goes from -1.8", "0 to 255"),
    "16 bits": (lambda x: x.to(torch.int32) * 257, "goes up to 65", "0 to 255"),
    "NaN": (lambda x: x.float().index_fill(2, torch.tensor([5]), np.nan), "not finite", ""),
    "infinite": (lambda x: x.half() * 600, "not finite", ""),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("training", [True, False])
def test_an_image_that_is_not_what_the_detector_takes_is_refused_by_name(what, training):
    change, *parts = WRONG[what]
    with pytest.raises(ValueError) as error:
        tiny_fcos().train(training)(with_images(change))
    for part in ("image_1.jpg", *parts):
        assert part in str(error.value)


def test_an_image_without_a_file_is_named_by_its_number():
    inputs = with_images(lambda x: x[:2])
    inputs[1].pop("file_name")
    with pytest.raises(ValueError, match="image number 1 of the batch has the shape"):
        tiny_fcos()(inputs)


def test_bytes_under_a_mean_of_units_are_refused_and_units_are_taken():
    model = tiny_fcos(**UNITS)
    with pytest.raises(ValueError, match="image_0.jpg has the dtype torch.uint8.*0 to 1"):
        model(batch())
    model([{**x, "image": x["image"] / 255} for x in batch()])


def test_a_batch_without_an_image_is_refused():
    with pytest.raises(ValueError, match="the batch holds no image"):
        tiny_fcos().eval()([])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda inputs: inputs[0], "is a builtins.dict"),
        (lambda inputs: [x["image"] for x in inputs], "holds a torch.Tensor"),
        (lambda inputs: torch.stack([x["image"] for x in inputs[:1]]), "is a torch.Tensor"),
        (lambda inputs: iter(inputs), "is a builtins.list_iterator"),
    ],
)
def test_a_batch_that_is_no_list_of_dicts_is_refused(wrong, said, training):
    with pytest.raises(ValueError, match=f"the batch {said}; expected a list of dicts"):
        tiny_fcos().train(training)(wrong(batch()))


RIGHT = [torch.int16, torch.int32, torch.int64, torch.float32, torch.float64, torch.float16]


@pytest.mark.parametrize("dtype", [*RIGHT, torch.uint16] if hasattr(torch, "uint16") else RIGHT)
@pytest.mark.parametrize("make", DETECTORS)
def test_the_same_pixels_in_a_wider_type_give_the_same_input(make, dtype):
    model = make()
    expected = model.preprocess_image(batch()).tensor
    found = model.preprocess_image([{**x, "image": x["image"].to(dtype)} for x in batch()]).tensor
    assert torch.equal(found, expected)


def test_images_of_16_bits_are_taken_with_a_mean_of_16_bits():
    model = tiny_fcos(pixel_mean=[30000.0] * 3, pixel_std=[15000.0] * 3)
    wide = [{**x, "image": x["image"].to(torch.int32) * 257} for x in batch()]
    assert all(loss.isfinite() for loss in model(wide).values())


def test_a_black_image_of_floats_is_taken():
    tiny_fcos()(with_images(lambda x: torch.zeros_like(x, dtype=torch.float32)))
    tiny_fcos()(with_images(lambda x: (x > 200).float()))


def test_a_grey_image_is_that_in_all_channels():
    model = tiny_fcos()
    one = with_images(lambda x: x[:1])
    three = with_images(lambda x: x[:1].expand(3, -1, -1))
    assert torch.equal(model.preprocess_image(one).tensor, model.preprocess_image(three).tensor)


def test_a_grey_detector_takes_one_channel_only():
    model = grey()
    inputs = [{**x, "image": x["image"][:1]} for x in batch()]
    assert all(loss.isfinite() for loss in model(inputs).values())
    with pytest.raises(ValueError, match=r"image_0.jpg has the shape \(3, 64, 96\).*1 channel"):
        model(batch())


def test_the_input_is_of_the_detectors_precision():
    model = tiny_fcos().to(torch.bfloat16)
    for dtype in (torch.uint8, torch.float32, torch.float64):
        inputs = [{**x, "image": x["image"].to(dtype)} for x in batch()]
        assert model.preprocess_image(inputs).tensor.dtype == torch.bfloat16
        assert all(loss.isfinite() for loss in model(inputs).values())


def test_an_image_that_is_larger_than_the_square_of_the_backbone_is_refused():
    model = tiny_fcos()
    backbone = model.backbone
    kind = type("Square", (type(backbone),), {"padding_constraints": {"square_size": 64}})
    backbone.__class__ = kind
    assert padding(backbone) == (32, 64)
    with pytest.raises(ValueError, match=r"image_0.jpg has the sides \(64, 96\).*64 x 64"):
        model.eval()(batch()[:1])


@pytest.mark.parametrize("input_format", CHANNELS)
def test_every_format_is_shown_in_its_colours(input_format):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    if input_format == "L":
        rgb[:] = rgb[..., :1]
    pixels = convert_PIL_to_numpy(Image.fromarray(rgb), input_format)
    image = torch.as_tensor(pixels.transpose(2, 0, 1).copy())
    shown = as_rgb(image, input_format)
    assert shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - rgb).max() <= 1


def test_what_is_converted_is_what_detectron2_reads_in_that_format():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8))

    def read(picture, input_format):
        pixels = convert_PIL_to_numpy(picture, input_format).transpose(2, 0, 1)
        return [{"image": torch.as_tensor(pixels.copy())}]

    for source, target in (("BGR", "RGB"), ("RGB", "BGR"), ("BGR", "BGR"), ("L", "BGR")):
        shown = picture.convert("L") if source == "L" else picture
        (found,) = converted(read(shown, source), source, target)
        (expected,) = read(shown, target)
        image = found["image"].expand_as(expected["image"])
        assert torch.equal(image, expected["image"]), (source, target)


def test_the_input_of_a_detector_can_be_compared():
    ours = image_input("BGR", [1, 2, 3], [1, 1, 1], tiny_backbone())
    assert ours == image_input("BGR", [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], tiny_backbone())
    assert ours != dataclasses.replace(ours, input_format="RGB")
    assert ours != dataclasses.replace(ours, mean=(0.0, 0.0, 0.0))
    assert randomized(tiny_fcos()).image_input == tiny_gfl().image_input
