"""Files for other runtimes detect what the detector does, in batches of any number and size."""

from __future__ import annotations

import warnings

import pytest
import torch

from dense_kd.detectors.base import deform_conv
from dense_kd.errors import DenseKDError
from dense_kd.export import DetectionGraph, files
from dense_kd.export.verifying import example_of, verify
from helpers.detector_variants import VARIANTS
from helpers.torch_features import TORCH

SIX = ["RetinaNet", "FCOS", "ATSS", "GFL", "DDOD", "AutoAssign"]
needs_export = pytest.mark.skipif(TORCH < (2, 5), reason="torch.export has no derived sizes before")
IMAGES = [(96, 64), (64, 128), (90, 70)]


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in IMAGES]


def detector(name: str):
    model = VARIANTS[name].build().eval()
    model.test_score_thresh = min(model.test_score_thresh, 0.02)
    model.test_topk_candidates = 50  # which decides the size of what is suppressed
    return model


def written_and_verified(tmp_path, name: str, kind: str, outputs: str):
    if kind == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    graph = DetectionGraph(detector(name), outputs)
    path = str(tmp_path / files.FORMATS[kind].file)
    run = files.write(kind, graph, path, {"note": [1, 2]}, example_of(images(), graph.multiple))
    return path, verify(run, graph, images())


@pytest.mark.slow
@pytest.mark.parametrize("name", SIX)
def test_an_onnx_file_detects_what_the_detector_does(tmp_path, name: str):
    _, verified = written_and_verified(tmp_path, name, "onnx", "detections")
    assert verified.compared > 0 and verified.elsewhere <= verified.compared / 100
    assert len({shape[1:] for shape in verified.batches}) > 1
    assert {shape[0] for shape in verified.batches} == {1, 3, 4}


@pytest.mark.slow
def test_an_onnx_file_gives_the_raw_predictions(tmp_path):
    onnx = pytest.importorskip("onnx")
    path, verified = written_and_verified(tmp_path, "FCOS", "onnx", "raw")
    assert verified.box_difference < 1e-3
    assert {p.key: p.value for p in onnx.load(path).metadata_props}["note"] == "[1, 2]"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GFL", "DDOD"])
def test_a_torchscript_file_detects_what_the_detector_does(tmp_path, name: str):
    _, verified = written_and_verified(tmp_path, name, "torchscript", "detections")
    assert verified.compared > 0 == verified.elsewhere and verified.box_difference < 1e-4


@pytest.mark.parametrize("name, outputs", [("DDOD", "raw"), ("FCOS", "detections")])
def test_a_torchscript_file_computes_where_its_input_lies_and_the_same_numbers(
    tmp_path, name: str, outputs: str
):
    graph = DetectionGraph(detector(name), outputs)
    path, example = str(tmp_path / "model.ts"), example_of(images(), graph.multiple)
    run = files.write("torchscript", graph, path, {}, example)
    text = str(torch.jit.load(path).inlined_graph)
    assert "prim::device(" in text and "Device = prim::Constant" not in text
    with torch.no_grad():
        for found, expected in zip(run(*example), graph(*example)):
            assert found.equal(expected)


@needs_export
@pytest.mark.slow
def test_an_exported_program_detects_what_the_detector_does(tmp_path):
    """Of one detector: it takes longer than all other files together."""
    _, verified = written_and_verified(tmp_path, "FCOS", "torch_export", "detections")
    assert verified.compared > 0 == verified.elsewhere and verified.box_difference < 1e-4


@pytest.mark.parametrize("shape", [(2, 4, 7, 5), (1, 4, 1, 3), (2, 4, 2, 1)], ids=str)
def test_a_deformable_convolution_by_sampling_is_torchvisions(shape):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, offset = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, (6, 4, 3, 3), (6,), (shape[0], 18, *shape[2:]))
    )
    arguments = (x, 3 * offset, weight, bias)
    torch.testing.assert_close(
        deform_conv._by_sampling(*arguments, padding=(1, 1)),
        deform_conv.deform_conv2d(*arguments, padding=(1, 1)),
    )


def test_a_file_that_detects_otherwise_is_refused():
    graph = DetectionGraph(detector("FCOS"))

    def moved(batch, sizes):
        boxes, *others = graph(batch, sizes)
        return [boxes + 0.5, *others]

    with pytest.raises(DenseKDError, match="does not do what the detector does: batches of"):
        verify(moved, graph, images())


def test_a_detector_that_finds_nothing_is_not_said_to_be_verified():
    model = detector("FCOS")
    model.test_score_thresh = 0.999
    graph = DetectionGraph(model)
    with pytest.raises(DenseKDError, match="finds nothing in the images.*--images"):
        verify(lambda *inputs: list(graph(*inputs)), graph, images())


def test_an_exporter_that_fails_is_an_error_of_ours(tmp_path, monkeypatch):
    def fails(*arguments):
        raise TypeError("no such operator\nand a long graph")

    kind = files.FileFormat("model.onnx", fails, lambda path: None)
    monkeypatch.setitem(files.FORMATS, "onnx", kind)
    graph = DetectionGraph(detector("FCOS"))
    with (
        warnings.catch_warnings(),
        pytest.raises(
            DenseKDError, match="FCOS could not be exported to onnx: TypeError: no such operator$"
        ),
    ):
        files.write("onnx", graph, str(tmp_path / "x"), {}, example_of(images(), graph.multiple))


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    graph = DetectionGraph(detector("FCOS"))
    with pytest.raises(DenseKDError, match="need the package onnx, which is not installed"):
        files.write("onnx", graph, str(tmp_path / "x"), {}, example_of(images(), graph.multiple))
