#!/usr/bin/env python
"""A teacher in 8-bit integers, beside float32 and bfloat16: GFL with a ResNet-101, on the CPU.

Needs `pip install onnx onnxruntime`, which nothing else here does. Weights are random and scaled as
those of `dense-kd benchmark`, images are noise. The integers are those of onnxruntime's static
quantisation: weights per channel, ranges of the maps from images like those that are measured.
Norms are folded everywhere. Times are medians of rounds in which each runs once; differences are
mean absolute ones of the class logits and the box distributions from torch's float32, divided by
their mean absolute values.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dense_kd import get_config
from dense_kd.benchmark.machine import circumstances, load_average
from dense_kd.benchmark.random_weights import settle
from dense_kd.benchmark.timing import spread, timed_rounds
from dense_kd.benchmark.work import Part
from dense_kd.detectors.base.folding import fold_norms
from dense_kd.engine.building import build
from dense_kd.json_files import write_json

RESULTS = Path(__file__).parent / "results" / "int8_teacher.json"
TEACHER = "gfl/r101_2x_ms.py"
CALIBRATION_IMAGES = 4
REFERENCE = "torch, float32"


class Maps(nn.Module):
    """A detector from pixels to the maps of its head: logits, then distributions of all levels."""

    def __init__(self, model: Any):
        """
        Args:
            model: a GFL.
        """
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            images: (N, 3, H, W), normalised.
        """
        outputs = self.model.maps_of_head(self.model.pyramid(images)).outputs
        return (*outputs.logits, *outputs.distribution)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--size", nargs=2, type=int, default=(480, 640), metavar=("H", "W"))
    option("--threads", type=int, default=2, help="of each (%(default)s)")
    option("--rounds", type=int, default=10, help="that count (%(default)s)")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    torch.manual_seed(0)
    model = build(get_config(TEACHER).model, "model").eval().requires_grad_(False)
    settle(model)
    fold_norms(model)
    maps = Maps(model).eval()
    images = torch.randn(1, 3, *args.size)
    content = {**circumstances(device), "load_before": load_average(), "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        runs = {**_of_torch(maps, images), **_of_onnxruntime(maps, images, folder, args.threads)}
        expected = runs[REFERENCE]()
        differences = {name: _difference(run(), expected) for name, run in runs.items()}
        parts = {name: Part(run) for name, run in runs.items()}
        seconds = timed_rounds(parts, device, rounds=args.rounds, warmup=2)
    content["load_after"] = load_average()
    content["runs"] = {
        name: {
            "seconds": spread(seconds[name]),
            "difference": differences[name],
        }
        for name in runs
    }
    write_json(args.results, content)
    floor = content["runs"][REFERENCE]["seconds"]["median"]
    for name, run in content["runs"].items():
        ratio = run["seconds"]["median"] / floor
        print(f"{name}: {ratio:.2f} of the time, difference {run['difference']}")


@torch.no_grad()
def _of_torch(maps: Maps, images: Tensor) -> dict[str, Callable[[], list[Tensor]]]:
    last = copy.deepcopy(maps).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    arranged = images.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def float32() -> list[Tensor]:
        return list(maps(images))

    @torch.no_grad()
    def bfloat16() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return [x.float() for x in last(arranged)]

    return {REFERENCE: float32, "torch, bfloat16, channels last": bfloat16}


def _of_onnxruntime(
    maps: Maps, images: Tensor, folder: str, threads: int
) -> dict[str, Callable[[], list[Tensor]]]:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    plain, integers = f"{folder}/float32.onnx", f"{folder}/int8.onnx"
    torch.onnx.export(maps, (images,), plain, dynamo=False, input_names=["images"])

    class Images(CalibrationDataReader):
        """Noise, as that which is measured."""

        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = iter(
                [torch.randn_like(images).numpy() for _ in range(CALIBRATION_IMAGES)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    quantize_static(
        plain,
        integers,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool"],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def runner(file: str) -> Callable[[], list[Tensor]]:
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        given = {"images": images.numpy()}
        return lambda: [torch.from_numpy(x) for x in session.run(None, given)]

    return {"onnxruntime, float32": runner(plain), "onnxruntime, int8": runner(integers)}


def _difference(found: list[Tensor], expected: list[Tensor]) -> dict[str, float]:
    """{"logits", "distributions"}: of all levels together."""
    half = len(expected) // 2
    result = {}
    for name, levels in (("logits", slice(half)), ("distributions", slice(half, None))):
        ours = torch.cat([x.flatten() for x in found[levels]])
        theirs = torch.cat([x.flatten() for x in expected[levels]])
        result[name] = round(float((ours - theirs).abs().mean() / theirs.abs().mean()), 5)
    return result


if __name__ == "__main__":
    main()
