"""The plan of a distillation: what is trained, from what, with which numbers, and why."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

from .. import compat
from ..checkpoint import class_names, read_content
from ..data import BUILT_IN
from ..data.folders import read_dataset
from ..detectors.base.images import padding
from ..distiller import Distiller
from ..engine.checks.files import folder_problems
from ..engine.checks.sizes import vanishing
from ..engine.checks.teacher_cache import padding_problems, resized
from ..engine.fingerprint import cores
from ..methods import DistillationError
from ..pairs import teacher_for
from ..teacher import Teacher
from ..teacher_cache import IN_MEMORY
from . import derive
from .derive import Devices, Number, Precision
from .errors import PipelineError
from .methods import ChosenMethods, choose_methods
from .named_detectors import NamedDetector, find_detector, named_detector
from .options import DistillOptions
from .own_data import own_dataloader
from .unlabelled import Unlabelled, find_unlabelled

__all__ = ["DetectorPlan", "Plan", "make_plan"]

_PARTS = ("train", "val", "test", "unlabelled")


@dataclasses.dataclass(frozen=True)
class DetectorPlan:
    """One of the two detectors.

    Attributes:
        role: "teacher" or "student".
        found: where it comes from.
        cfg: of :func:`named_detector`, for the classes of the data.
        weights: what it starts from, or is; "" for random numbers.
        why: these weights.
        trained: on the data; False: ``weights`` are used as they are.
        numbers: of its training.
    """

    role: str
    found: NamedDetector
    cfg: DictConfig
    weights: str
    why: str
    trained: bool
    numbers: dict[str, Number]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is decided before anything is written.

    Attributes:
        options: as given.
        data: an ``OwnDataset`` of :mod:`dense_kd.data.folders`.
        name: of its datasets in detectron2's catalogs, followed by _train, _val and _test: that of
            the folder, or own_FOLDER where the name stands for a dataset of others.
        output: folder of all that is made.
        devices: what the trainings run on.
        precision: of all trainings.
        numbers: of all trainings.
        teacher, student: the detectors.
        methods: between them.
        unlabelled: images without labels, if there are any.
    """

    options: DistillOptions
    data: Any
    name: str
    output: Path
    devices: Devices
    precision: Precision
    numbers: dict[str, Number]
    teacher: DetectorPlan
    student: DetectorPlan
    methods: ChosenMethods
    unlabelled: Unlabelled | None = None

    @property
    def stages(self) -> list[str]:
        """The trainings, in their order."""
        teacher = ["teacher"] if self.teacher.trained else []
        return [*teacher, *(["student"] if self.options.compare else []), "distilled"]

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        data = self.data
        parts = [("training", data.train), ("validation", data.val), ("test", data.test)]
        counts = ", ".join(f"{len(images)} {part}" for part, images in parts if images)
        yield f"data: {data.root} ({data.layout}), {counts} images; {data.split}"
        yield f"  {data.problems.summary()}"
        empty = ((part, sum(not x["annotations"] for x in images or ())) for part, images in parts)
        listed = ", ".join(f"{count} {part}" for part, count in empty if count)
        if listed:
            yield f"  without an object: {listed} images"
        yield f"  {len(data.classes)} classes: {', '.join(data.classes)}"
        yield f"devices: {self.devices}"
        yield f"precision: {self.precision}"
        yield from _numbers(self.numbers)
        yield from self.unlabelled.lines() if self.unlabelled else ()
        for plan in (self.teacher, self.student):
            yield f"{plan.role}: {plan.found.name} ({plan.found.origin})"
            start = "starts from" if plan.trained else "is used as it is:"
            yield f"  {start} {plan.weights or 'random weights'} ({plan.why})"
            if plan.trained:
                yield from _numbers(plan.numbers)
        if self.options.teacher_cache is not None:
            yield f"teacher's cache: {self.options.teacher_cache} (as given)"
        for name, (_, options) in self.methods.options.items():
            given = ", ".join(f"{k}={v!r}" for k, v in options.items())
            yield f"method: {name}({given}), {self.methods.origins[name]}"
        if self.methods.flags.get("init_student"):
            yield "  the student begins with the teacher's FPN and head, where they fit"
        if self.options.balance is not None:
            yield f"balance: each method gets {self.options.balance:g} of the gradient (as given)"
        processes = f" --num-gpus {self.devices.count}" if self.devices.count > 1 else ""
        for number, stage in enumerate(self.stages, start=1):
            file = self.output / f"{stage}.py"
            yield f"stage {number}: dense-kd train {file}{processes}"
        tested = "test, once" if data.test else "val"
        yield f"stage {len(self.stages) + 1}: AP on {tested}, {self.output / 'report.html'}"


def make_plan(data: str, options: DistillOptions) -> Plan:
    """Read the data and decide everything; nothing is written or downloaded.

    Raises:
        DatasetError: the data is unusable.
        PipelineError: an option is wrong, or a file that it names.
    """
    try:
        found = {role: find_detector(getattr(options, role)) for role in ("teacher", "student")}
    except ValueError as error:
        raise PipelineError(str(error)) from error
    small = all(f.width is not None or f.checkpoint is not None for f in found.values())
    methods = choose_methods(
        options.method, found["student"].detector, found["student"].width is not None
    )
    devices = _devices(options)
    if options.layout not in (None, "coco", "voc", "yolo"):
        raise PipelineError(f"layout={options.layout!r}: expected coco, voc or yolo")
    images = read_dataset(
        data, layout=options.layout, val_fraction=options.val_fraction, seed=options.seed
    )
    folder = re.sub(r"\W+", "_", images.name).strip("_") or "data"
    name = f"own_{folder}" if any(f"{folder}_{part}" in BUILT_IN for part in _PARTS) else folder
    sizes = [(image["height"], image["width"]) for image in images.train]
    short, long = derive.image_size(sizes, small, options.short_edge, options.long_edge)
    batch = derive.batch_size(len(sizes), devices, options.batch_size)
    _check_batch(int(batch.value), devices)
    workers = Number(0, "the CPU is busy with training")
    if options.num_workers is not None:
        workers = derive.given(options.num_workers)
    elif devices.kind.startswith("cuda"):
        value = max(min(4, cores() // devices.count - 1), 0)
        workers = Number(value, f"{cores()} cores, 4 for each GPU at most")
    numbers = {
        "short edge": short,
        "long edge": long,
        "batch size": batch,
        "workers": workers,
        "seed": Number(options.seed, "of the initial weights and the order of the images"),
    }
    plans = {
        role: _detector(role, found[role], options, images.classes, len(sizes), int(batch.value))
        for role in found
    }
    plan = Plan(
        options=options,
        data=images,
        name=name,
        output=Path(options.output or f"output/distill/{folder}"),
        devices=devices,
        precision=derive.precision(
            options.precision, options.teacher_precision, devices, small, _has_bfloat16(devices)
        ),
        numbers=numbers,
        methods=methods.fitted(int(plans["student"].numbers["iterations"].value)),
        teacher=plans["teacher"],
        student=plans["student"],
    )
    model = _check_pair(plan)
    if options.unlabelled is not None:
        plan = dataclasses.replace(plan, unlabelled=_unlabelled(plan, model))
    _check_sizes(plan, model)
    if options.teacher_cache is not None:
        _check_cache(plan, model, sizes, int(batch.value))
        if plan.unlabelled is not None:
            sizes = [(image["height"], image["width"]) for image in plan.unlabelled.images]
            _check_cache(plan, model, sizes, int(plan.unlabelled.batch.value))
    return plan


def _unlabelled(plan: Plan, model: Distiller) -> Unlabelled:
    """The images, if the methods can learn from them."""
    options, readers = plan.options, model.kd.reads_ground_truth
    score = options.score_thresh
    if score is not None and not readers:
        raise PipelineError(
            f"score_thresh={score}: {options.method} reads no objects, so the teacher's detections "
            "are not needed; leave it out"
        )
    if score is not None:
        lowest = teacher_for("score_thresh", model.teacher).model.test_score_thresh
        if score < lowest:
            raise PipelineError(
                f"score_thresh={score}: the teacher gives no detections below its "
                f"test_score_thresh={lowest}; give at least that"
            )
    return find_unlabelled(
        str(options.unlabelled),
        plan.data,
        ratio=options.unlabelled_ratio,
        batch=int(plan.numbers["batch size"].value),
        devices=plan.devices,
        reads_objects=bool(readers),
        score=score,
    )


def _detector(
    role: str,
    found: NamedDetector,
    options: DistillOptions,
    classes: list[str],
    num_images: int,
    batch: int,
) -> DetectorPlan:
    given = getattr(options, f"{role}_weights") or found.checkpoint
    prefix = "teacher_" if role == "teacher" else ""
    wanted = getattr(options, f"{prefix}iterations")
    scratch = options.from_scratch and not given
    try:
        cfg = named_detector(found.name, classes=classes, from_scratch=scratch)
    except ValueError as error:
        raise PipelineError(f"{role}={found.name}: {error}") from error
    weights, why = given or cfg.train.init_checkpoint, "its backbone's, from ImageNet"
    trained_for = None
    if given:
        why = "as given"
        if not Path(given).is_file() and "://" not in given:
            raise PipelineError(f"{role}_weights={given}: there is no such file")
        if Path(given).is_file():
            trained_for = class_names(read_content(given))
    elif scratch:
        why = "as asked for"
    elif found.published:
        why = "COCO's; what belongs to its classes begins anew"
        trained_for = MetadataCatalog.get("coco_2017_val").thing_classes
    elif not weights:
        why = "such detectors have no trained weights"
    as_it_is = role == "teacher" and (wanted == 0 or _same(trained_for, classes))
    if as_it_is and not weights:
        raise PipelineError(
            "teacher_iterations=0, but the teacher has no weights; give teacher_weights"
        )
    if as_it_is and wanted not in (None, 0):
        as_it_is = False  # more training was asked for
    if as_it_is:
        why = "trained for these classes" if wanted is None else "as asked for"
    rate = derive.learning_rate(
        cfg.optimizer.lr, cfg.batch_size, batch, getattr(options, f"{prefix}learning_rate")
    )
    length = derive.iterations(num_images, batch, wanted)
    warmup = derive.warmup(int(length.value), options.warmup_iterations)
    numbers = {"iterations": length, "learning rate": rate, "warm-up": warmup}
    return DetectorPlan(role, found, cfg, weights, why, not as_it_is, numbers)


def _same(names: list[str] | None, classes: list[str]) -> bool:
    plain = [
        [name.casefold().replace("_", " ") for name in each] for each in (names or (), classes)
    ]
    return plain[0] == plain[1]


def _devices(options: DistillOptions) -> Devices:
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if options.num_gpus > count:
            raise PipelineError(
                f"num_gpus={options.num_gpus}, device={device}: this machine has {count} GPUs; "
                "device=cpu trains without one"
            )
    elif device != "cpu":
        raise PipelineError(f"device={device!r}: expected cuda or cpu")
    return Devices(device, options.num_gpus)


def _has_bfloat16(devices: Devices) -> bool:
    if not devices.kind.startswith("cuda"):
        return compat.cpu_has_bfloat16()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _check_batch(batch: int, devices: Devices) -> None:
    if batch % devices.count:
        raise PipelineError(
            f"batch_size={batch}: expected a multiple of the {devices.count} processes, which "
            "share it"
        )


def _check_pair(plan: Plan) -> Distiller:
    """The model; the methods can distil this teacher into this student, or the error says why."""
    teacher = L(Teacher)(model=plan.teacher.cfg.model, weights="not read here")
    model = L(Distiller)(
        student=plan.student.cfg.model,
        teacher=teacher,
        methods=plan.methods.lazy(plan.options.balance),
        **plan.methods.flags,
    )
    try:
        return instantiate(model)
    except (DistillationError, ValueError) as error:
        raise PipelineError(
            f"{plan.options.method} cannot distil {plan.teacher.found.name} into "
            f"{plan.student.found.name}: {error}"
        ) from error


def _dataloader(plan: Plan, model: Distiller) -> DictConfig:
    numbers = {name: int(number.value) for name, number in plan.numbers.items()}
    return own_dataloader(
        train="",
        test="",
        short_edge=numbers["short edge"],
        long_edge=numbers["long edge"],
        batch_size=numbers["batch size"],
        image_format=model.student.input_format,
        seed=plan.options.seed,
        num_workers=0,
    )


def _check_sizes(plan: Plan, model: Distiller) -> None:
    """Whether all images are there once they are resized; those of the test come last."""
    data, unlabelled = plan.data, plan.unlabelled.images if plan.unlabelled else []
    for problem in vanishing(
        [*data.train, *data.val, *(data.test or ()), *unlabelled],
        _dataloader(plan, model).test.mapper.augmentations,
    ):
        raise PipelineError(f"{data.root}: {problem} (long_edge={plan.numbers['long edge'].value})")


def _check_cache(plan: Plan, model: Distiller, sizes: list[tuple[int, int]], batch: int) -> None:
    """Whether images come again as the teacher's cache has them, before the teacher is trained."""
    cache = str(plan.options.teacher_cache)
    multiple, square = padding(model.student.backbone)
    given = f"teacher_cache={cache}"
    problems = [
        *padding_problems(
            given,
            sizes,
            resized(sizes, _dataloader(plan, model).train.mapper.augmentations),
            batch // plan.devices.count,
            0 if square else multiple,
            without="leave the option out",
        ),
        *([] if cache == IN_MEMORY else folder_problems("teacher_cache", cache)),
    ]
    if not cache.strip():
        problems = [f"{given!r}: expected memory, or a folder"]
    if problems:
        raise PipelineError("; ".join(problems))


def _numbers(numbers: dict[str, Number]) -> Iterator[str]:
    for name, number in numbers.items():
        yield f"  {name}: {number.value:g} ({number.reason})"
