"""Images of datasets and of who wants detections: damaged ones, odd ones, and ones that explode.

What a header says may take memory up to Pillow's own limit, of 179 million pixels, and no more.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper
from PIL import Image

from dense_kd.data import TrainLoader, read_dataset
from dense_kd.prediction.images import pixels_of
from helpers.own_datasets import scenes, write_yolo

from .mutations import damaged
from .outcomes import REPAIRED, SAME, VALUES, Case, Kind, Violation

SIZE = (40, 30)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MODES = ("RGB", "L", "RGBA", "P", "1", "LA", "CMYK", "I;16", "I", "F")
DEEP = ("I;16", "I;16B", "I", "F")
"""Modes with more than 8 bits, which would be cut off at 255."""


def picture(mode: str, rng: Any) -> Image.Image:
    """Noise in any mode; of the deep ones, all of whose range is used."""
    noise = np.random.default_rng(rng.randrange(1000)).integers(0, 256, (SIZE[1], SIZE[0], 3))
    if mode in DEEP:
        deep = noise[..., 0] * 257
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        return Image.fromarray(deep.astype(kinds[mode]))
    image = Image.fromarray(noise.astype(np.uint8))
    return image.convert(mode)


def written(image: Image.Image, kind: str, rng: Any) -> bytes:
    """A file, with an orientation or several frames now and then."""
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = rng.choice((0, 1, 2, 3, 6, 8, 9, 65535))
        options["exif"] = exif.tobytes()
    if kind in ("PNG", "GIF", "TIFF", "WEBP") and rng.random() < 0.2:
        options.update(save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    if kind == "JPEG" and rng.random() < 0.3:
        options["progressive"] = True
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, pixels: bytes = b"", depth: int = 8, **chunks: bytes) -> bytes:
    """A PNG of grey pixels that says what it likes; its checksums are right."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    more = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    )


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 10, 0, 0, 54) + header + bytes(10)


def _jpeg(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "JPEG")
    at = data.getvalue().index(b"\xff\xc0") + 5
    return data.getvalue()[:at] + struct.pack(">HH", height, width) + data.getvalue()[at + 4 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "a PNG of 50,000 x 50,000": lambda: png(50_000, 50_000),
    "a PNG of 2^31 x 2^31": lambda: png(2**31 - 1, 2**31 - 1),
    "a PNG of 4,000 x 4,000 in 100 bytes": lambda: png(4_000, 4_000),
    "a PNG of 4,000 x 4,000 zeros": lambda: png(4_000, 4_000, bytes(4_001 * 4_000)),
    "a PNG with 20 MB of text": lambda: png(
        40, 30, bytes(41 * 30), zTXt=b"a\0\0" + zlib.compress(bytes(20_000_000))
    ),
    "a PNG with a profile of 20 MB": lambda: png(
        40, 30, bytes(41 * 30), iCCP=b"a\0\0" + zlib.compress(bytes(20_000_000))
    ),
    "a PNG without height": lambda: png(40, 0),
    "a BMP of 40,000 x 40,000": lambda: _bmp(40_000, 40_000),
    "a BMP of a negative width": lambda: _bmp(-40, 30),
    "a JPEG of 65,500 x 65,500": lambda: _jpeg(65_500, 65_500),
    "a JPEG of 4,000 x 4,000": lambda: _jpeg(4_000, 4_000),
    "a PPM of 10^9 x 10^9": lambda: b"P6 1000000000 1000000000 255\n" + bytes(100),
    "a PPM of 4,000 x 4,000": lambda: b"P6 4000 4000 255\n" + bytes(100),
    "a PPM with a long number": lambda: b"P6 " + b"1" * 100_000 + b" 30 255\n",
    "a GIF of 65,535 x 65,535": lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(100),
}  # fmt: skip
OTHERS: dict[str, bytes] = {
    "nothing": b"",
    "a web page": b"<!doctype html><html>",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a PostScript program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n"
    b"(executed) (w) file closefile\nshowpage\n",
    "a PDF": b"%PDF-1.4\n1 0 obj",
    "text": b"a" * 1000,
}  # fmt: skip


def made(case: Case) -> tuple[bytes, bool]:
    """The bytes of an image, and whether more than 8 bits of its pixels count."""
    rng = case.rng
    what = rng.random()
    if what < 0.15:
        case.mutation = rng.choice([*BOMBS])
        return BOMBS[case.mutation](), False
    if what < 0.25:
        case.mutation = rng.choice([*OTHERS])
        return OTHERS[case.mutation], False
    kind, mode = rng.choice(FORMATS), rng.choice(MODES)
    try:
        data = written(picture(mode, rng), kind, rng)
    except (OSError, KeyError, ValueError):  # there is no such file
        kind, mode = "PNG", "RGB"
        data = written(picture(mode, rng), kind, rng)
    case.mutation = f"a {kind} of {mode}"
    if what < 0.6:
        return data, Image.open(io.BytesIO(data)).mode in DEEP
    mutation, data = damaged(data, rng)
    case.mutation = f"{mutation} of a {kind}"
    return data, False


def prepare(folder: Path) -> Path:
    """A dataset whose last image will be another one."""
    write_yolo(folder / "images" / "train", folder / "labels" / "train", scenes(3))
    write_yolo(folder / "images" / "val", folder / "labels" / "val", {"v": scenes(1)["000"]})
    (folder / "classes.txt").write_text("disc\nsquare\n")
    return folder


def of_a_dataset(shared: Path, case: Case) -> str:
    """One image of a dataset, which is read and then trained on."""
    import shutil

    root = case.folder / "data"
    shutil.copytree(shared, root)
    data, deep = made(case)
    (root / "images" / "train" / "002.png").unlink()
    name = f"002{case.rng.choice(('.png', '.jpg', '.bmp', '.tif', '.webp', '.PNG'))}"
    (root / "images" / "train" / name).write_bytes(data)
    found = read_dataset(root)
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    loader = TrainLoader(found.train, mapper=mapper, total_batch_size=1, seed=0)
    for batch in itertools.islice(loader, len(found.train)):
        (image,) = batch
        if tuple(image["image"].shape[1:]) != (image["height"], image["width"]):
            raise Violation("the image has another size than its record")
    if len(found.problems):
        return REPAIRED
    if deep:
        raise Violation("its pixels are cut off at 255, and nothing is said")
    return VALUES if "of a" in case.mutation[2:] else SAME


def to_detect_on(shared: None, case: Case) -> str:
    """One image that a predictor is given."""
    data, deep = made(case)
    path = case.folder / f"image{case.rng.choice(('.png', '.jpg', '.tif', ''))}"
    path.write_bytes(data)
    pixels = pixels_of(path, case.rng.choice(("BGR", "RGB", "L")), "BGR")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not pixels.size:
        raise Violation(f"{pixels.dtype} {pixels.shape} of an image")
    if deep:
        raise Violation("its pixels are cut off at 255, and nothing is said")
    return VALUES if "of a" in case.mutation[2:] else SAME


KINDS = {
    "image of a dataset": Kind(of_a_dataset, prepare, share=4),
    "image to detect on": Kind(to_detect_on, lambda folder: None, share=3),
}
