"""Images are read as training reads them, whatever they come as."""

from __future__ import annotations

import os

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from PIL import Image

from dense_kd.data.folders.images import UnreadableImageError, read_header
from dense_kd.prediction import ImageError
from dense_kd.prediction.images import as_input, pixels_of
from helpers.described import picture

ORIENTATION = 0x0112

MODES = {
    "1": "png", "L": "png", "LA": "png", "P": "png", "RGB": "jpg", "RGBA": "png", "CMYK": "jpg",
    "I;16": "png", "F": "tif", "YCbCr": "jpg",
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601"])
def test_images_of_every_mode_are_what_detectron2_reads(mode, image_format, tmp_path):
    path = str(tmp_path / f"picture.{MODES[mode]}")
    image = picture(12, 10)
    grey = image.convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16))
    elif mode == "F":
        image = grey.convert("F")
    else:
        image = image.convert(mode)
    image.save(path)
    expected = read_image(path, image_format)
    assert expected.shape == (12, 10, 1 if image_format == "L" else 3)
    assert np.array_equal(pixels_of(path, image_format, "BGR"), expected)
    with Image.open(path) as opened:
        assert np.array_equal(pixels_of(opened, image_format, "BGR"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(orientation, tmp_path):
    path = str(tmp_path / "turned.png")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture(12, 10).save(path, exif=exif)
    expected = read_image(path, "BGR")
    assert expected.shape == ((12, 10, 3) if orientation < 5 else (10, 12, 3))
    assert np.array_equal(pixels_of(path, "BGR", "BGR"), expected)
    with Image.open(path) as opened:
        assert np.array_equal(pixels_of(opened, "BGR", "BGR"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_that_training_would_turn_twice_is_refused_as_by_the_reader(orientation, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.tif"
    for file in (path, tmp_path / "turned.png"):
        picture(12, 10).save(file, exif=exif)
    expected = pixels_of(tmp_path / "turned.png", "BGR", "BGR")
    with Image.open(path) as opened:
        assert np.array_equal(pixels_of(opened, "BGR", "BGR"), expected)
    if orientation == 1:
        assert np.array_equal(pixels_of(path, "BGR", "BGR"), expected)
        assert read_header(path).orientation == 1
        return
    with pytest.raises(
        ImageError, match=f"turned.tif is a TIFF with the orientation {orientation}"
    ):
        pixels_of(path, "BGR", "BGR")
    with pytest.raises(UnreadableImageError, match=f"is a TIFF with the orientation {orientation}"):
        read_header(path)


def test_the_first_frame_of_several_is_the_image(tmp_path):
    frames = [picture(12, 10, seed=seed).quantize() for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    expected = np.asarray(frames[0].convert("RGB"))
    assert np.array_equal(pixels_of(tmp_path / "a.gif", "RGB", "BGR"), expected)


def test_arrays_have_the_channels_that_are_said():
    rgb = np.asarray(picture(12, 10))
    assert np.array_equal(pixels_of(rgb, "RGB", "RGB"), rgb)
    assert np.array_equal(pixels_of(rgb, "BGR", "RGB"), rgb[:, :, ::-1])
    assert np.array_equal(pixels_of(rgb, "BGR", "BGR"), rgb)
    grey = rgb[:, :, 0]
    for given in (grey, grey[:, :, None]):
        assert np.array_equal(pixels_of(given, "L", "BGR"), grey[:, :, None])
        assert np.array_equal(pixels_of(given, "BGR", "BGR"), np.repeat(grey[:, :, None], 3, 2))


@pytest.mark.parametrize(
    "array, said",
    [
        (np.zeros((4, 5, 3), np.float32), r"float32.*\(255 \* array\)"),
        (np.zeros((4, 5, 3), np.int64), "int64; expected"),
        (np.zeros((4, 5, 4), np.uint8), "drop the fourth channel"),
        (np.zeros((3, 4, 5), np.uint8), r"array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"shape \(2, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros((0, 5), np.uint8), r"shape \(0, 5\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 5, 2), np.uint8), r"expected \(H, W, 3\), BGR, or grey"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, said):
    with pytest.raises(ImageError, match=said):
        pixels_of(array, "BGR", "BGR")


@pytest.mark.parametrize("image", [None, 3, b"bytes", [np.zeros((4, 5, 3), np.uint8)]])
def test_so_is_anything_else(image):
    with pytest.raises(ImageError, match="expected a path, a picture of PIL or a numpy array"):
        pixels_of(image, "BGR", "BGR")


def test_files_that_are_no_images_are_refused_by_name(tmp_path):
    picture(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-80])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    for name, said in [
        ("cut.png", "it cannot be read as an image"),
        ("text.jpg", "it is no image that PIL can read"),
        ("empty.jpg", "it is no image that PIL can read"),
        ("none.jpg", "there is no such file"),
        ("", "it is a folder, expected an image"),
    ]:
        with pytest.raises(ImageError) as error:
            pixels_of(tmp_path / name, "BGR", "BGR")
        assert str(error.value).startswith(f"{tmp_path / name}: {said}")


def test_the_model_is_told_the_size_of_the_image_before_it_is_resized():
    inputs = as_input(np.asarray(picture(12, 10)), [T.Resize((24, 30))])
    assert inputs["image"].shape == (3, 24, 30)
    assert (inputs["height"], inputs["width"]) == (12, 10)


def test_pixels_that_do_not_fit_into_8_bits_are_refused_by_name(tmp_path):
    deep = Image.fromarray(np.full((30, 40), 300, np.uint16))
    deep.save(tmp_path / "deep.png")
    for image, name in ((tmp_path / "deep.png", "deep.png"), (deep, "a picture of PIL")):
        with pytest.raises(ImageError, match=f"{name} has pixels from 300 to 300"):
            pixels_of(image, "BGR", "BGR")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="a.png: it is not a file"):
        pixels_of(tmp_path / "a.png", "BGR", "BGR")
