"""Detect objects in images: `python detect.py IMAGE...`; needs onnxruntime, numpy and Pillow."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent
CONFIG = json.loads((FOLDER / "config.json").read_text())
SESSION = onnxruntime.InferenceSession(
    str(FOLDER / CONFIG["file"]), providers=["CPUExecutionProvider"]
)


def run(images: np.ndarray, sizes: np.ndarray) -> "list[np.ndarray]":
    """boxes (N, M, 4), scores (N, M), classes (N, M) and counts (N,) of (N, C, H, W), (N, 2)."""
    return SESSION.run(None, {"images": images, "sizes": sizes})


def size_on_input(width: int, height: int) -> "tuple[int, int]":
    """(width, height) of an image as the detector was tested."""
    resize = CONFIG["resize"]
    if resize is None:
        return width, height
    if "size" in resize:
        return resize["size"][1], resize["size"][0]
    scale = resize["short_edge"] / min(width, height)
    scale = min(scale, resize["long_edge"] / max(width, height))
    return int(width * scale + 0.5), int(height * scale + 0.5)


def detect(path: str, threshold: float = 0.3) -> "list[dict[str, object]]":
    """[{"class", "score", "box": [x1, y1, x2, y2] in pixels of the image}, ...] of a file."""
    grey = CONFIG["input_format"] == "L"
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if grey else "RGB")
    width, height = size_on_input(*image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    pixels = pixels.reshape(height, width, -1)
    if CONFIG["input_format"] == "BGR":
        pixels = pixels[:, :, ::-1]
    padded = [-(-side // CONFIG["multiple"]) * CONFIG["multiple"] for side in (height, width)]
    batch = np.zeros((1, pixels.shape[2], *padded), np.float32)
    batch[0, :, :height, :width] = pixels.transpose(2, 0, 1)
    boxes, scores, classes, _ = run(batch, np.array([[height, width]], np.int64))
    factors = np.array([image.width / width, image.height / height] * 2)
    return [
        {"class": CONFIG["classes"][c], "score": float(s), "box": (b * factors).tolist()}
        for b, s, c in zip(boxes[0], scores[0], classes[0])
        if s > threshold
    ]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"image": name, "detections": detect(name)}))
