"""``dense-kd export``: a folder with a trained detector and all that is needed to run it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig
from torch import Tensor, nn

from ..arguments import is_number
from ..benchmark.machine import circumstances
from ..checkpoint import convert_file, replace_atomically, write_text
from ..checkpoint.description import description_of
from ..checkpoint.places import check_folder
from ..checkpoint.reading.weights import read_content
from ..checkpoint.zoo import published_file
from ..detectors.base.dense import DenseDetector
from ..engine import load_config
from ..engine.checks import data
from ..json_files import read_json, without_nan, write_json
from ..prediction import Predictor
from ..prediction.images import as_input, pixels_of
from .card import card
from .errors import ExportError
from .files import FORMATS, OPSET, write
from .graph import DETECTIONS, DetectionGraph
from .int8 import INT8_FILE, calibration_images, compared, quantized, table_of
from .mmdet import to_mmdet
from .origin import Origin, origin_of
from .pictures import drawn_pictures, read_pictures
from .stock import stock_detector, write_stock_config
from .verifying import example_of, verify, verify_model

TARGETS = (*FORMATS, "mmdet", "detectron2")
"""What a detector can be exported to."""

_PROGRAMS = Path(__file__).parent / "programs"
_CARD, _CONFIG, _WEIGHTS, _PROGRAM = "README.md", "config.json", "weights.pth", "detect.py"


@dataclass(frozen=True)
class Exported:
    """
    Attributes:
        folder: what was written.
        files: {name: what it is}.
        verified: what was compared.
    """

    folder: Path
    files: dict[str, str]
    verified: str


def export(
    source: str,
    to: str,
    output: str | os.PathLike[str],
    *,
    outputs: str = DETECTIONS,
    config: str | None = None,
    images: Sequence[str] = (),
    score_threshold: float | None = None,
    int8: bool = False,
    data_licence: str = "",
    overwrite: bool = False,
) -> Exported:
    """Write a trained detector for another program, and try what was written.

    Args:
        source: the folder of a run, a checkpoint, or a public name as ``mmdet://NAME``; of a
            distillation, the student.
        to: one of :data:`TARGETS`.
        output: the folder to write.
        outputs: of a graph, see :class:`.graph.DetectionGraph`.
        config: of the run, if the checkpoint does not describe its detector.
        images: files, or folders of them, that the file is tried with; without, images with
            objects of simple shapes are drawn.
        score_threshold: of the class scores of detections; None: the detector's own.
        int8: of "onnx", write a second file whose convolutions compute in 8-bit integers, and
            evaluate both on the test set of the run, see :mod:`.int8`.
        data_licence: of the training data, for the card.
        overwrite: replace ``output``, which is an export or an empty folder.

    Raises:
        ExportError: it cannot be written, or what was written does otherwise.
        CheckpointError: the weights cannot be read.
        SaveError: nothing can be written beside ``output``.
    """
    if to not in TARGETS:
        raise ExportError(f"to={to!r}: expected one of {', '.join(TARGETS)}")
    if outputs != DETECTIONS and to not in FORMATS:
        raise ExportError(f"outputs={outputs!r} is of graphs ({', '.join(FORMATS)}), not of {to}")
    if int8 and (to != "onnx" or outputs != DETECTIONS):
        raise ExportError("int8 is of onnx with detections, which can be evaluated")
    output = Path(output).expanduser()
    if os.path.lexists(output):
        _check_replaced(output, overwrite)
    check_folder(output.parent)
    origin = origin_of(source)
    if output.is_dir():
        _check_outside(output, [origin.weights, source, config, *images])
    cfg = _config_of(origin, config) if int8 else None
    predictor = Predictor(origin.weights, config, device="cpu")
    detector: Any = predictor.model
    if score_threshold is not None:
        if not (is_number(score_threshold) and 0 <= score_threshold <= 1):
            raise ExportError(f"score_threshold={score_threshold!r}: expected a number from 0 to 1")
        detector.test_score_thresh = score_threshold
    if not isinstance(detector, DenseDetector):
        raise ExportError(
            f"{origin.weights} holds a {type(detector).__name__}, no detector of dense_kd"
        )
    pictures = _prepared(predictor, read_pictures(images) if images else drawn_pictures())
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn = "" if images else " The images were drawn: simple shapes, which it may not know."
    made = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        described = {
            "detector": type(detector).__name__,
            "classes": predictor.class_names,
            "category_ids": predictor.category_ids,
            "input_format": predictor.image_format,
            "resize": resizing(predictor.augmentations),
        }
        export = _Export(made, origin, predictor, detector, pictures, described)
        if to in FORMATS:
            verified = export.graph(to, outputs) + drawn
            if cfg is not None:
                verified += f"\n\n{export.int8(cfg)}"
        elif to == "mmdet":
            verified = export.mmdet()
        else:
            verified = export.detectron2() + drawn
        write_json(made / _CONFIG, export.config)
        text = card(
            f"{origin.run.name if origin.run else Path(origin.weights).name} as {to}",
            export.config,
            facts=origin.facts,
            metrics=origin.run.metrics if origin.run else {},
            verified=verified,
            circumstances=circumstances(torch.device("cpu")),
            data_licence=data_licence,
            files=export.files,
            detector=detector,
        )
        write_text(made / _CARD, text)
        made.chmod(0o777 & ~_umask())
        if output.exists():
            _check_replaced(output, overwrite)  # it may have come meanwhile
            shutil.rmtree(output)
        os.replace(made, output)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Exported(output, {**export.files, _CARD: "the card"}, verified)


class _Export:
    """What is written into a folder, target by target."""

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        predictor: Predictor,
        detector: DenseDetector,
        pictures: list[Tensor],
        described: dict[str, Any],
    ):
        self.folder, self.origin, self.detector, self.pictures = folder, origin, detector, pictures
        self._predictor = predictor
        self.config = described
        self.files: dict[str, str] = {}

    def graph(self, to: str, outputs: str) -> str:
        """A graph, the weights beside it, and a program that runs it."""
        graph = DetectionGraph(self.detector, outputs)
        kind = FORMATS[to]
        self.config.update(format=to, file=kind.file, outputs=outputs, multiple=graph.multiple)
        if to == "onnx":
            self.config["opset"] = OPSET
        path = str(self.folder / kind.file)
        example = example_of(self.pictures, graph.multiple)
        run = write(to, graph, path, {"dense_kd": self.config}, example)
        verified = verify(run, graph, self.pictures)
        self.files[kind.file] = f"the detector for {to}, {_megabytes(path)}"
        self.files[_CONFIG] = "classes, and how an image is resized and padded"
        if outputs == DETECTIONS and self.config["input_format"] != "YUV-BT.601":
            shutil.copyfile(_PROGRAMS / _PROGRAM, self.folder / _PROGRAM)
            self.files[_PROGRAM] = "runs it on images, without dense_kd"
        self._weights()
        return f"{to} against torch, {verified}."

    def int8(self, cfg: DictConfig) -> str:
        """A second file in 8-bit integers; a table of both."""
        multiple = self.config["multiple"]
        images = calibration_images(cfg, lambda file: _prepared(self._predictor, [file])[0])
        paths = {"float32": self.folder / self.config["file"], "int8": self.folder / INT8_FILE}
        path, target = (str(paths[name]) for name in ("float32", "int8"))
        quantised = quantized(path, target, images, multiple)
        runs = {"float32": (FORMATS["onnx"].load(path), path), "int8": (quantised, target)}
        found = compared(cfg, runs, images, multiple)
        self.files[INT8_FILE] = (
            f"the same with convolutions in 8-bit integers, {_megabytes(target)}; to use it, write "
            f'its name under "file" of {_CONFIG}'
        )
        self.config["int8"] = {
            name: {"metrics": without_nan(each.metrics), "seconds": each.seconds}
            for name, each in found.items()
        }
        return (
            f"On the test set of the run, ranges of {len(images)} training images:\n\n"
            f"{table_of(found)}"
        )

    def _save(self, content: dict[str, Any]) -> None:
        place = str(self.folder / _WEIGHTS)
        replace_atomically(place, lambda file: torch.save(content, file))

    def mmdet(self) -> str:
        """Weights under mmdetection's keys."""
        state = to_mmdet(self.detector)
        classes = tuple(self.config["classes"])
        content = {
            "meta": {"CLASSES": classes, "dataset_meta": {"classes": classes}},
            "state_dict": state,
        }
        self._save(content)
        self.config.update(format="mmdet", file=_WEIGHTS)
        self.files[_WEIGHTS] = (
            f"weights under mmdetection's keys, {_megabytes(self.folder / _WEIGHTS)}"
        )
        self.files[_CONFIG] = "classes, and how an image is resized"
        return f"{len(state)} tensors were read again from mmdetection's keys, and are the same."

    def detectron2(self) -> str:
        """Weights and LazyConfig of a detector of detectron2 alone."""
        description = self._predictor.description
        model = description.model
        if model is None:
            raise ExportError(
                f"the detector in {self.origin.weights} cannot be described: "
                f"{description.incomplete}"
            )
        path = str(self.folder / "config.py")
        write_stock_config(model, self.detector.head_in_features, path)
        state = {key: value.clone() for key, value in self.detector.state_dict().items()}
        stock: nn.Module = stock_detector(path, state)
        self._save({"model": state})
        verified = verify_model(stock, self.detector, self.pictures)
        self.config.update(format="detectron2", file=_WEIGHTS)
        self.files[_WEIGHTS] = (
            f"weights for detectron2's DetectionCheckpointer, {_megabytes(self.folder / _WEIGHTS)}"
        )
        self.files["config.py"] = "the detector as a LazyConfig of detectron2 alone"
        self.files[_CONFIG] = "classes, and how an image is resized"
        return f"detectron2's own detector against this one, {verified}."

    def _weights(self) -> None:
        source = published_file(self.origin.weights)
        target = self.folder / _WEIGHTS
        description = description_of(read_content(source), self.origin.weights)
        convert_file(source, str(target), None if description is None else "student")
        self.files[_WEIGHTS] = f"the same weights for dense_kd, {_megabytes(target)}"


def _config_of(origin: Origin, config: str | None) -> DictConfig:
    """Of a run, with its data."""
    place = config or str(Path(origin.weights).parent / "config.yaml")
    if config is None and not os.path.isfile(place):
        raise ExportError(
            "int8 needs the data of the run: ranges of maps are taken of training images, and both "
            f"precisions are evaluated. There is no {place}; give the config (--config)"
        )
    cfg = load_config(place)
    problems = [*data.name_problems(cfg, "train"), *data.problems(cfg, "evaluate")]
    if problems:
        listed = "".join(f"\n    {problem}" for problem in problems)
        raise ExportError(f"int8 needs the data of the run, {place}:{listed}")
    return cfg


def _check_replaced(output: Path, overwrite: bool) -> None:
    """Whether what is there may be replaced: nothing but an export is."""
    if not output.is_dir() or output.is_symlink():
        what = "a link" if output.is_symlink() else "a file"
        raise ExportError(f"{output} is {what}, expected a folder to write; give another")
    if any(output.iterdir()) and not {"format", "file"} <= read_json(output / _CONFIG).keys():
        raise ExportError(
            f"{output} holds something else than an export (there is no {_CONFIG} with format and "
            "file), which --overwrite does not replace; give another folder"
        )
    if not overwrite:
        raise ExportError(f"{output} exists; give another folder, or --overwrite")


def _check_outside(output: Path, needed: Sequence[str | None]) -> None:
    """Whether nothing that the export reads is in the folder that it replaces."""
    for name in needed:
        if name and os.path.exists(name) and Path(name).resolve().is_relative_to(output.resolve()):
            raise ExportError(
                f"--overwrite would remove {name}, which is read; give another folder"
            )


def default_folder(source: str, to: str) -> Path:
    """Where an export goes if nobody says it: beside the run, or beside the weights."""
    path = Path(source)
    if "://" in source:
        return Path(f"{source.partition('://')[2].rpartition('/')[2]}_{to}")
    return path.parent / f"{path.stem if path.is_file() else path.resolve().name}_{to}"


def resizing(augmentations: Sequence[Any]) -> dict[str, Any] | None:
    """How images are resized, for a program that has no augmentations of detectron2.

    Returns:
        {"short_edge", "long_edge"}, {"size": [height, width]}, or None: they are not, as with a
        short edge of 0.

    Raises:
        ExportError: something else is done to them.
    """
    found = None
    for augmentation in augmentations:
        if found is not None:
            raise ExportError(f"images are resized twice for this detector: {augmentations}")
        if type(augmentation) is T.ResizeShortestEdge:
            lengths = augmentation.short_edge_length
            if len(set(lengths)) != 1:
                raise ExportError(f"test images have one of several sizes: {augmentation}")
            if lengths[0]:
                found = {"short_edge": lengths[0], "long_edge": augmentation.max_size}
        elif type(augmentation) is T.Resize:
            found = {"size": list(augmentation.shape)}
        else:
            raise ExportError(
                f"test images go through {augmentation}; what is exported can resize them, with "
                "ResizeShortestEdge or Resize of detectron2, and nothing else"
            )
    return found


def _prepared(predictor: Predictor, pictures: Sequence[Any]) -> list[Tensor]:
    """(C, H, W) each, as the detector takes them."""
    return [
        as_input(pixels_of(x, predictor.image_format, "RGB"), predictor.augmentations)["image"]
        for x in pictures
    ]


def _megabytes(path: str | os.PathLike[str]) -> str:
    return f"{os.path.getsize(path) / 1e6:.1f} MB"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
