"""Write a graph in the format of a runtime, and run what was written."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import compat
from .errors import ExportError
from .graph import INPUTS, OUTPUTS, RAW, DetectionGraph

Runner = Callable[[Tensor, Tensor], "list[Tensor]"]
"""What a runtime makes of a batch and its sizes, as :meth:`DetectionGraph.forward` takes them."""

OPSET = 17
"""Of ONNX; 16 is the first that samples maps, as the deformable convolutions of DDOD do."""

_BATCH, _HEIGHT, _WIDTH = "batch", "height", "width"


@dataclass(frozen=True)
class FileFormat:
    """
    Attributes:
        file: its name in the folder.
        write: called with a graph, an example of its inputs, the path, and texts to keep with it.
        load: gives the runner of a path.
    """

    file: str
    write: Callable[[DetectionGraph, tuple[Tensor, Tensor], str, Mapping[str, str]], None]
    load: Callable[[str], Runner]


def _write_onnx(
    graph: DetectionGraph, example: tuple[Tensor, Tensor], path: str, notes: Mapping[str, str]
) -> None:
    onnx = module("onnx")
    axes = {
        "images": {0: _BATCH, 2: _HEIGHT, 3: _WIDTH},
        "sizes": {0: _BATCH},
        **{name: {0: _BATCH} for name in OUTPUTS[graph.outputs]},
    }
    if graph.outputs == RAW:
        axes.update({name: {0: _BATCH, 1: "predictions"} for name in OUTPUTS[RAW]})
    # The exporter by traces: it is in all versions, and a trace is what the tests compare.
    by_trace: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        by_trace["dynamo"] = False
    torch.onnx.export(
        graph,
        example,
        path,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS[graph.outputs]),
        dynamic_axes=axes,
        **by_trace,
    )
    model = onnx.load(path)
    for name, text in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _load_onnx(path: str) -> Runner:
    runtime = module("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
        inputs = dict(zip(INPUTS, (images.numpy(), sizes.numpy())))
        return [torch.from_numpy(np.asarray(x)) for x in session.run(None, inputs)]

    return run


def _write_torchscript(
    graph: DetectionGraph, example: tuple[Tensor, Tensor], path: str, notes: Mapping[str, str]
) -> None:
    traced = torch.jit.trace(graph, example, check_trace=False)
    for part in traced.modules():  # which has a method for each time that it was called
        for method in part._c._method_names():
            _follow_device(part._c._get_method(method).graph)
    torch.jit.save(traced, path, _extra_files={name: text for name, text in notes.items()})


def _follow_device(graph: Any) -> None:
    """Have what a traced graph makes lie where its input is: a trace notes the device it was made
    on for each range and each map of zeros, also those of detectron2 and torchvision.

    Args:
        graph: of a method; it is changed.
    """
    where = None
    for node in graph.findAllNodes("prim::Constant"):
        if node.output().type().kind() != "DeviceObjType":
            continue
        if where is None:
            tensor = next(x for x in graph.inputs() if x.type().kind() == "TensorType")
            where = graph.create("prim::device", [tensor], 1)
            graph.prependNode(where)
            where.output().setType(node.output().type())
        node.output().replaceAllUsesWith(where.output())
        node.destroy()


def _load_torchscript(path: str) -> Runner:
    loaded = torch.jit.load(path)
    return lambda images, sizes: list(loaded(images, sizes))


def _write_torch_export(
    graph: DetectionGraph, example: tuple[Tensor, Tensor], path: str, notes: Mapping[str, str]
) -> None:
    dim = _exporting().Dim
    batch, height, width = dim(_BATCH, min=1), dim(_HEIGHT, min=1), dim(_WIDTH, min=1)
    shapes = (
        {0: batch, 2: graph.multiple * height, 3: graph.multiple * width},
        {0: batch},
    )
    program = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
    torch.export.save(program, path, extra_files=dict(notes))


def _load_torch_export(path: str) -> Runner:
    loaded = _exporting().load(path).module()
    return lambda images, sizes: list(loaded(images, sizes))


FORMATS = {
    "onnx": FileFormat("model.onnx", _write_onnx, _load_onnx),
    "torchscript": FileFormat("model.ts", _write_torchscript, _load_torchscript),
    "torch_export": FileFormat("model.pt2", _write_torch_export, _load_torch_export),
}


def write(
    name: str,
    graph: DetectionGraph,
    path: str,
    notes: Mapping[str, Any],
    example: tuple[Tensor, Tensor],
) -> Runner:
    """Write a graph and return what runs the file.

    Args:
        name: of :data:`FORMATS`.
        graph: on the CPU.
        path: of the file.
        notes: kept in the file, as texts; what is no text as JSON.
        example: a batch of two images, and their sizes.

    Raises:
        ExportError: it cannot be written so.
    """
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in notes.items()}
    kind = FORMATS[name]
    with torch.no_grad(), _constant(graph), quiet("torch.onnx", "torch.export"):
        try:
            kind.write(graph, example, path, texts)
            return kind.load(path)
        except ExportError:
            raise
        except Exception as error:  # of any exporter
            reason = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"{type(graph.detector).__name__} could not be exported to {name}: "
                f"{type(error).__name__}: {reason}"
            ) from error


@contextlib.contextmanager
def _constant(graph: DetectionGraph) -> Iterator[None]:
    """Parameters without gradients, as a trace wants them."""
    trained = [parameter for parameter in graph.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Traces warn of each number that is constant, exporters of themselves, and onnxruntime's
    quantisation at each call that what is prepared should be prepared.

    Args:
        names: of loggers, which say errors alone meanwhile; "" is the root.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def module(name: str) -> Any:
    """A module of the extra `export`.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"ONNX files need the package {name.partition('.')[0]}, which is not installed: "
            "pip install 'dense_kd[export]' or onnx and onnxruntime"
        ) from error


def _exporting() -> Any:
    try:
        compat.check_exports_sizes()
    except ValueError as error:
        raise ExportError(f"{error}; take onnx or torchscript") from error
    return torch.export
