from __future__ import annotations

import os

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image, PngImagePlugin

from dense_kd.data.folders.images import UnreadableImageError, read_header
from helpers.own_datasets import write_image


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 5, 6, 8])
def test_the_size_is_that_of_the_image_that_detectron2_reads(tmp_path, suffix, orientation):
    path = write_image(tmp_path / f"a{suffix}", (40, 30), orientation=orientation)
    header = read_header(path)
    assert header.stored == (40, 30)
    assert header.orientation == orientation
    assert header.size == read_image(str(path), "BGR").shape[1::-1]


def test_a_tiff_that_would_be_turned_twice_is_unreadable(tmp_path):
    assert read_header(write_image(tmp_path / "a.tif", (40, 30))).size == (40, 30)
    path = write_image(tmp_path / "b.tif", (40, 30), orientation=6)
    with pytest.raises(UnreadableImageError, match="TIFF with the orientation 6"):
        read_header(path)


def test_orientation_behind_the_pixels_of_a_png_is_seen(tmp_path):
    path = write_image(tmp_path / "a.png", (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    content, end = path.read_bytes()[:-12], path.read_bytes()[-12:]
    with path.open("wb") as file:
        file.write(content)
        PngImagePlugin.putchunk(file, b"eXIf", exif.tobytes()[6:])
        file.write(end)
    assert read_image(str(path), "BGR").shape[:2] == (40, 30)
    assert read_header(path).size == (30, 40)


@pytest.mark.parametrize(
    "mode, suffix",
    [("L", ".jpg"), ("L", ".png"), ("P", ".png"), ("P", ".gif"), ("1", ".png"), ("RGBA", ".png"),
     ("CMYK", ".jpg"), ("LA", ".png")],
)  # fmt: skip
def test_grey_palette_and_other_images_are_read(tmp_path, mode, suffix):
    path = write_image(tmp_path / f"a{suffix}", (40, 30), mode=mode)
    assert read_header(path).size == (40, 30)
    assert read_image(str(path), "BGR").shape == (30, 40, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("part", [0.99, 0.6])
def test_an_image_that_is_cut_off_is_unreadable(tmp_path, suffix, part):
    path = write_image(tmp_path / f"a{suffix}", (200, 150))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(UnreadableImageError):
        read_header(path)


def test_what_cameras_append_to_a_jpeg_does_not_make_it_unreadable(tmp_path):
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert read_header(path).size == (40, 30)


def test_files_that_are_no_images_are_unreadable(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image" * 100)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    for name, reason in {
        "empty": "is empty", "text": "is no image", "folder": "is not a file",
        "pipe": "is not a file", "link": "does not exist", "gone": "does not exist",
    }.items():  # fmt: skip
        with pytest.raises(UnreadableImageError, match=reason):
            read_header(tmp_path / f"{name}.jpg")


def test_an_image_of_far_too_many_pixels_is_unreadable(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.png", (40, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="exceeds limit"):
        read_header(path)


def test_copies_have_the_same_fingerprint(tmp_path):
    path = write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "c.png")
    first, second, third = (read_header(tmp_path / f"{name}.png").fingerprint for name in "abc")
    assert first == second != third


@pytest.mark.parametrize(
    "dtype, suffix, value",
    [("uint16", ".png", 300), ("int32", ".tif", -1), ("float32", ".tif", 256), ("f4", ".tif", 0.5)],
)
def test_pixels_that_do_not_fit_into_8_bits_are_not_cut_off_in_silence(
    tmp_path, dtype, suffix, value
):
    pixels = np.full((30, 40), 7, dtype) if value > 1 else np.zeros((30, 40), dtype)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    assert read_header(tmp_path / f"a{suffix}").size == (40, 30)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    with pytest.raises(UnreadableImageError, match=f"pixels .*{value}.* would be cut off to 0"):
        read_header(tmp_path / f"a{suffix}")
