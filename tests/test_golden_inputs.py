"""From images to the network's input, as mmdetection has them: see golden/README.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_kd import get_config
from dense_kd.detectors.assignment.locations import not_in_padding
from helpers.builders import GOLDEN, assert_close, golden
from helpers.mmdet_models import CONFIGS, INPUTS, detector

INPUT_NOISE = 1e-6  # ten roundings; none was measured


def _files_with(key: str) -> list[str]:
    files = []
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path) as arrays:
            if key in arrays.files:
                files.append(path.stem)
    return files


@pytest.mark.parametrize("name", CONFIGS)
def test_images_become_mmdetections_input(name: str):
    config = get_config(CONFIGS[name]).model
    data = golden("det_inputs")
    pixels = {key: list(config[key]) for key in ("pixel_mean", "pixel_std")}
    if name == "det_fcos_tricks":  # the original's config has the means of detectron2
        pixels["pixel_mean"] = [103.53, 116.28, 123.675]
    model = detector(name, **pixels)
    inputs = []
    for image in range(2):
        pixel = data[f"img{image}_bgr_u8"].permute(2, 0, 1)  # (3, H, W)
        inputs.append({"image": pixel.flip(0) if config.input_format == "RGB" else pixel})
    images = model.preprocess_image(inputs)
    expected = data[INPUTS[name]]
    assert_close(images.tensor, expected, INPUT_NOISE)
    sizes = [tuple(golden(f"{name}_data")[f"img{i}/img_shape"].tolist()) for i in range(2)]
    assert [tuple(size) for size in images.image_sizes] == sizes


@pytest.mark.parametrize("name", _files_with("img0/pad_shape"))
def test_the_padding_begins_where_the_original_implementation_has_it(name: str):
    data = golden(name)
    for image in range(2):
        size, padded = (data[f"img{image}/{key}"].tolist() for key in ("img_shape", "pad_shape"))
        y, x = torch.meshgrid(torch.arange(0, 257, 8), torch.arange(0, 257, 8), indexing="ij")
        centers = torch.stack((x, y), dim=-1).view(-1, 2).float()
        keep = not_in_padding(torch.cat((centers - 32, centers + 32), dim=1), tuple(size), 32)
        inside = (centers[:, 0] < padded[1]) & (centers[:, 1] < padded[0])
        assert torch.equal(keep, inside) and 0 < keep.sum() < len(keep)
