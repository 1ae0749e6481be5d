"""Detect objects in images: `python detect.py IMAGE...`.

Needs numpy, Pillow, and onnxruntime for a file of ONNX, else torch and torchvision.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent
CONFIG = json.loads((FOLDER / "config.json").read_text())


def load(path: str, kind: str) -> "Callable[[np.ndarray, np.ndarray], list[np.ndarray]]":
    """From (N, C, H, W), (N, 2) to boxes (N, M, 4), scores and classes (N, M), and counts (N,)."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images, sizes: session.run(None, {"images": images, "sizes": sizes})
    import torch
    import torchvision  # noqa: F401  # registers the suppression of boxes

    model = torch.jit.load(path) if kind == "torchscript" else torch.export.load(path).module()

    def run(images: np.ndarray, sizes: np.ndarray) -> "list[np.ndarray]":
        with torch.no_grad():
            return [x.numpy() for x in model(torch.from_numpy(images), torch.from_numpy(sizes))]

    return run


DETECTOR = load(str(FOLDER / CONFIG["file"]), CONFIG["format"])


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


def check_depth(path: str, image: Image.Image) -> None:
    """Refuse pixels of more than 8 bits, which Pillow would cut off."""
    if image.mode[0] not in "IF":
        return
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if not (0 <= low and high <= 255) or (image.mode == "F" and 0 < high <= 1):
        raise ValueError(
            f"{path} has pixels from {low} to {high} (Pillow's mode {image.mode}), which would be "
            "cut off to 0 to 255; save it with 8 bits a channel"
        )


def detect(path: str, threshold: float = 0.3) -> "list[dict[str, object]]":
    """[{"class", "score", "box": [x1, y1, x2, y2] in pixels of the image}, ...] of a file."""
    grey = CONFIG["input_format"] == "L"
    opened = Image.open(path)
    check_depth(path, opened)
    image = ImageOps.exif_transpose(opened).convert("L" if grey else "RGB")
    width, height = size_on_input(*image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    pixels = pixels.reshape(height, width, -1)
    if CONFIG["input_format"] == "BGR":
        pixels = pixels[:, :, ::-1]
    padded = [-(-side // CONFIG["multiple"]) * CONFIG["multiple"] for side in (height, width)]
    batch = np.zeros((1, pixels.shape[2], *padded), np.float32)
    batch[0, :, :height, :width] = pixels.transpose(2, 0, 1)
    boxes, scores, classes, _ = DETECTOR(batch, np.array([[height, width]], np.int64))
    factors = np.array([image.width / width, image.height / height] * 2)
    return [
        {"class": CONFIG["classes"][c], "score": float(s), "box": (b * factors).tolist()}
        for b, s, c in zip(boxes[0], scores[0], classes[0])
        if s > threshold
    ]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"image": name, "detections": detect(name)}))
