"""8-bit integers in place of floats: static quantisation of an ONNX file, and what it costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from tabulate import tabulate
from torch import Tensor

from ..benchmark.timing import timed_rounds
from ..benchmark.work import Part
from ..engine.evaluation import Evaluation
from ..evaluation.text import shown
from .card import METRICS
from .errors import ExportError
from .files import FORMATS, Runner, module, quiet
from .graph import INPUTS
from .verifying import batched

CALIBRATION_IMAGES = 64
"""Of the training set, evenly spread, of which the ranges of the maps are taken."""

INT8_FILE = "model_int8.onnx"

_IN_BACKBONE = {"Add", "MaxPool", "Relu"}
"""What may compute in integers beside convolutions; elsewhere these belong to boxes and scores."""

_ROUNDS = 10


@dataclass(frozen=True)
class Precision:
    """What one of the two files is.

    Attributes:
        metrics: {task: metrics} of the evaluation.
        seconds: of an image, the median.
        num_bytes: of the file.
    """

    metrics: dict[str, Any]
    seconds: float
    num_bytes: int


def quantized(path: str, target: str, images: Sequence[Tensor], multiple: int) -> Runner:
    """Write ``target``, the file ``path`` with convolutions in 8-bit integers.

    Weights have a scale for each channel, maps one each, from ranges in ``images``; the backbone
    computes in integers from map to map. Norms of fixed statistics are part of the convolutions
    before them; group norms, boxes, scores and suppression stay in floats.

    Args:
        path: of an ONNX file of this package.
        target: the file to write.
        images: (C, H, W) each, as the detector takes them.
        multiple: of the sides of a batch.

    Raises:
        ExportError: onnxruntime cannot do it.
    """
    quantization = module("onnxruntime.quantization")
    preparing = module("onnxruntime.quantization.shape_inference")
    onnx = module("onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        """Batches of one image."""

        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            if image is None:
                return None
            return dict(zip(INPUTS, (x.numpy() for x in batched([image], multiple))))

    with tempfile.TemporaryDirectory() as folder, quiet(""):
        prepared = os.path.join(folder, "prepared.onnx")
        try:
            # Norms become part of the convolutions before them.
            preparing.quant_pre_process(path, prepared, skip_symbolic_shape=True)
            nodes = [*_in_integers(onnx.load(prepared).graph)]
            quantization.quantize_static(
                prepared,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                nodes_to_quantize=nodes,
            )
            return FORMATS["onnx"].load(target)
        except Exception as error:  # of any step of another project
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"onnxruntime could not quantise the detector: {type(error).__name__}: {reason}"
            ) from error


def _in_integers(graph: Any) -> Iterator[str]:
    """Names of the nodes that compute in integers."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            # One of a single map is not worth it, and ends the process of onnxruntime 1.32.
            if shapes.get(node.input[1], [0])[0] != 1:
                yield node.name
        elif node.op_type in _IN_BACKBONE and node.name.startswith("/backbone/"):
            yield node.name


def calibration_images(
    cfg: DictConfig, prepare: Callable[[str], Tensor], number: int = CALIBRATION_IMAGES
) -> list[Tensor]:
    """Images of the training set, evenly spread over it.

    Args:
        cfg: of the run.
        prepare: makes of a file what the detector takes.
        number: at most.

    Raises:
        ExportError: the config has no images in files.
    """
    images = instantiate(cfg.dataloader.train.dataset)
    if not isinstance(images, Sequence) or not images or "file_name" not in images[0]:
        raise ExportError(
            "the training set of the config has no images in files, of which the ranges of the "
            "maps are taken"
        )
    chosen = np.linspace(0, len(images) - 1, min(number, len(images))).round().astype(int)
    return [prepare(images[index]["file_name"]) for index in chosen]


def compared(
    cfg: DictConfig, runs: dict[str, tuple[Runner, str]], images: Sequence[Tensor], multiple: int
) -> dict[str, Precision]:
    """What each file detects in the test set of the run, and how long it takes.

    Args:
        cfg: of the run.
        runs: {name: (runner, file)}.
        images: of which the first is timed, in rounds in which each runs once.
        multiple: see :func:`quantized`.
    """
    evaluation = Evaluation(cfg)
    metrics = {}
    for name, (run, _) in runs.items():
        metrics[name] = evaluation.run(RuntimeDetector(run, multiple))
    inputs = batched(images[:1], multiple)
    parts = {name: Part(_call(run, inputs)) for name, (run, _) in runs.items()}
    seconds = timed_rounds(parts, torch.device("cpu"), rounds=_ROUNDS, warmup=2)
    return {
        name: Precision(metrics[name], float(np.median(seconds[name])), os.path.getsize(file))
        for name, (_, file) in runs.items()
    }


def table_of(found: Mapping[str, Precision]) -> str:
    """Markdown: metrics in percent, time of an image and size of each."""
    floor = next(iter(found.values())).seconds
    rows = []
    for name, each in found.items():
        boxes = each.metrics.get("bbox", {})
        metrics = [shown(boxes.get(metric), "-") for metric in METRICS]
        ratio = f"{each.seconds / floor:.2f}"
        rows.append([name, *metrics, ratio, f"{each.num_bytes / 1e6:.1f} MB"])
    return tabulate(rows, ["", *METRICS, "time", "size"], tablefmt="github", disable_numparse=True)


class RuntimeDetector(torch.nn.Module):
    """A file as what detectron2 evaluates: from dicts with an "image" to dicts of Instances."""

    def __init__(self, run: Runner, multiple: int):
        """
        Args:
            run: a file with detections.
            multiple: of the sides of a batch.
        """
        super().__init__()
        self._run, self._multiple = run, multiple

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As a detector does in inference."""
        images, sizes = batched([x["image"] for x in batched_inputs], self._multiple)
        results = []
        for inputs, size, boxes, scores, classes, count in zip(
            batched_inputs, sizes.tolist(), *self._run(images, sizes)
        ):
            n = int(count)
            found = Instances(
                tuple(size),
                pred_boxes=Boxes(boxes[:n]),
                scores=scores[:n],
                pred_classes=classes[:n],
            )
            height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
            results.append({"instances": detector_postprocess(found, height, width)})
        return results


def _call(run: Runner, inputs: tuple[Tensor, Tensor]) -> Callable[[], object]:
    return lambda: run(*inputs)
