"""The run configs of a distillation, as files that are read, changed and trained again."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from ..checkpoint import write_text
from ..teacher_cache import IN_MEMORY
from .derive import Number, Precision
from .plan import DetectorPlan, Plan
from .unlabelled import IMAGES

__all__ = ["write_configs"]

_REPEAT = (
    "Written by `dense-kd distill`; repeat it by `dense-kd train FILE train.output_dir=FOLDER`."
)

_DETECTOR = '''\
"""{title}

{repeat}
"""

import os

from dense_kd import named_detector, own_dataloader
from dense_kd.data import register_annotations

OUT = os.path.dirname(os.path.abspath(__file__))
IMAGES = {root}
for part in {parts}:
    register_annotations(f"{name}_{{part}}", f"{{OUT}}/data/{{part}}.json", IMAGES)

{classes}
detector = named_detector({detector}, classes=CLASSES{scratch})
model, optimizer = detector.model, detector.optimizer
lr_multiplier, train = detector.lr_multiplier, detector.train

dataloader = own_dataloader(
    train="{name}_train",
    test="{name}_val",
    {short_edge}
    {long_edge}
    {batch_size}
    image_format={image_format},
    seed={seed},
    {workers}
)
{learning_rate}
{warmup}

{max_iter}
{weights}
{clip}train.seed = {seed}
train.checkpointer.period = {period}
{precision}train.device = {device}
train.output_dir = f"{{OUT}}/{role}"
'''

_DISTILLED = '''\
"""{title}

{repeat}
"""

from detectron2.config import LazyCall as L
{of_detectron2}
from dense_kd import {classes}
{of_data}
from .student import OUT, dataloader, lr_multiplier, optimizer, train
from .student import model as student
from .teacher import model as teacher

{unlabelled}model = L(Distiller)(
    student=student,
    teacher=L(Teacher)(
        model=teacher,
        weights={weights},
        {options},
    ),
    {methods}
{flags})
train.output_dir = f"{{OUT}}/distilled"
'''

_UNLABELLED = """\
UNLABELLED = {folder}
register_annotations("{name}_unlabelled", f"{{OUT}}/data/{file}", UNLABELLED)
dataloader.unlabelled = L(UnlabelledLoader)(
    dataset=L(get_detection_dataset_dicts)(names="{name}_unlabelled", filter_empty=False),
    mapper=dataloader.train.mapper,  # as labelled images
    {batch}
    num_workers=dataloader.train.num_workers,
    seed=dataloader.train.seed,
)
"""


def write_configs(plan: Plan, score: Number | None = None) -> dict[str, Path]:
    """Write ``teacher.py``, ``student.py`` and ``distilled.py`` into the plan's output folder.

    The folder must be there.

    Args:
        plan: of the distillation.
        score: from which the teacher's detections are objects of unlabelled images; where it is
            needed and not known yet, ``distilled.py`` is not written.

    Returns:
        {"teacher", "student" or "distilled": file}.
    """
    texts = {
        "teacher": _detector(plan, plan.teacher),
        "student": _detector(plan, plan.student),
    }
    if plan.unlabelled is not None and plan.unlabelled.score is not None:
        score = Number(plan.unlabelled.score, "as given")
    if score is not None or plan.unlabelled is None or not plan.unlabelled.reads_objects:
        texts["distilled"] = _distilled(plan, score)
    files = {name: plan.output / f"{name}.py" for name in texts}
    for name, text in texts.items():
        write_text(files[name], text)
    return files


def _detector(plan: Plan, detector: DetectorPlan) -> str:
    numbers = {**plan.numbers, **detector.numbers}
    title = f"{detector.found.name} on {plan.name}, {_size(plan)}: "
    title += "the teacher." if detector.role == "teacher" else "the student, without a teacher."
    warmup, length = detector.numbers["warm-up"], detector.numbers["iterations"]
    length = length if length.value else Number(1, "not trained: its weights are used as they are")
    period = plan.options.checkpoint_period or max(1, int(length.value) // 10)
    # Gradients of a new head are large; a recipe that clips has its own bound.
    clips = detector.cfg.train.get("clip_grad") is not None
    return _DETECTOR.format(
        title=_wrapped(title),
        repeat=_repeat(plan),
        root=_text(str(Path(plan.data.root).absolute())),
        image_format=_text(detector.cfg.model.get("input_format", "BGR")),
        parts=_text([part for part in ("train", "val", "test") if getattr(plan.data, part)]),
        name=plan.name,
        classes=_list("CLASSES", plan.data.classes),
        detector=_text(_name(detector)),
        scratch=", from_scratch=True" if _from_scratch(plan, detector) else "",
        short_edge=_line("short_edge={},", numbers["short edge"], 4),
        long_edge=_line("long_edge={},", numbers["long edge"], 4),
        batch_size=_line("batch_size={},", numbers["batch size"], 4),
        workers=_line("num_workers={},", numbers["workers"], 4),
        seed=plan.options.seed,
        learning_rate=_line("optimizer.lr = {}", numbers["learning rate"]),
        warmup=_line(
            f"lr_multiplier.warmup_length = {{}} / {int(length.value)}",
            Number(min(warmup.value, length.value), warmup.reason),
        ),
        max_iter=_line("train.max_iter = {}", length),
        weights=f"train.init_checkpoint = {_text(_file(detector.weights))}  # {detector.why}",
        clip="" if clips else "train.clip_grad = dict(max_norm=35.0, norm_type=2.0)\n",
        period=period,
        precision=_precision(plan.precision),
        device=_text(plan.devices.kind),
        role=detector.role,
    )


def _distilled(plan: Plan, score: Number | None) -> str:
    title = (
        f"{plan.student.found.name} on {plan.name}, {_size(plan)}: taught by "
        f"{plan.teacher.found.name} with {plan.options.method}."
    )
    used = [c.__name__ for c, _ in plan.methods.options.values()]
    calls = [
        f"{name}=L({c.__name__})({', '.join(f'{k}={v!r}' for k, v in options.items())})"
        for name, (c, options) in plan.methods.options.items()
    ]
    entries = "".join(
        f"\n        {call},  # {plan.methods.origins[name]}"
        for call, name in zip(calls, plan.methods.options)
    )
    if plan.options.balance is not None:
        used.append("Balance")
        entries += f"\n        balance=L(Balance)(target={plan.options.balance!r}),"
    weights = 'f"{OUT}/teacher/model_final.pth"'
    options = {"fold_norms": "True"}
    if plan.precision.teacher_channels_last:
        options["channels_last"] = "True"
    if plan.precision.teacher:
        options["precision"] = _text(plan.precision.teacher)
    cache = plan.options.teacher_cache
    if cache is not None:
        folder = str(Path(cache).absolute())
        options["cache"] = _text(cache if cache == IN_MEMORY else folder)
    names = {*used, "Distiller", "MethodSet", "Teacher"}
    if score is not None:
        names.add("PseudoLabels")
    of_data, of_detectron2 = "", ""
    if plan.unlabelled is not None:
        of_data = "from dense_kd.data import UnlabelledLoader, register_annotations\n"
        of_detectron2 = "from detectron2.data import get_detection_dataset_dicts\n"
    return _DISTILLED.format(
        title=_wrapped(title),
        repeat=_repeat(plan),
        classes=", ".join(sorted(names, key=str.casefold)),
        of_data=of_data,
        of_detectron2=of_detectron2,
        unlabelled=_unlabelled(plan),
        weights=weights if plan.teacher.trained else _text(_file(plan.teacher.weights)),
        options=", ".join(f"{name}={value}" for name, value in options.items()),
        methods=f"methods=L(MethodSet)({entries}\n    ),",
        flags="".join(f"    {flag}=True,\n" for flag in plan.methods.flags) + _objects(score),
    )


def _unlabelled(plan: Plan) -> str:
    """The loader of images without labels, if there are any."""
    if plan.unlabelled is None:
        return ""
    return _UNLABELLED.format(
        folder=_text(str(plan.unlabelled.folder)),
        name=plan.name,
        file=IMAGES,
        batch=_line("total_batch_size={},", plan.unlabelled.batch, 4),
    )


def _objects(score: Number | None) -> str:
    """What stands for the objects of these images."""
    if score is None:
        return ""
    return f"    {_line('pseudo_labels=L(PseudoLabels)(score_thresh={}),', score, 4)}\n"


def _precision(precision: Precision) -> str:
    lines = []
    if precision.is_half:
        lines.append(f"train.amp = dict(enabled=True, dtype={_text(precision.training)})")
    if precision.channels_last:
        lines.append("train.channels_last = True")
    return "".join(f"{line}\n" for line in lines)


def _repeat(plan: Plan) -> str:
    count = plan.devices.count
    processes = f" --num-gpus {count}" if count > 1 else ""
    return _wrapped(
        "Written by `dense-kd distill`. `dense-kd train FILE train.output_dir=FOLDER"
        f"{processes}` repeats it."
    )


def _size(plan: Plan) -> str:
    return f"{len(plan.data.train)} images of {len(plan.data.classes)} classes"


def _name(detector: DetectorPlan) -> str:
    name = detector.found.name
    return str(Path(name).absolute()) if Path(name).is_file() else name


def _from_scratch(plan: Plan, detector: DetectorPlan) -> bool:
    return plan.options.from_scratch and not detector.weights


def _file(weights: str) -> str:
    return str(Path(weights).absolute()) if Path(weights).is_file() else weights


def _line(code: str, number: Number, indent: int = 0) -> str:
    value = int(number.value) if float(number.value).is_integer() else number.value
    line = f"{code.format(value)}  # {number.reason}"
    if len(line) + indent <= 100:
        return line
    comment = textwrap.wrap(number.reason, 96 - indent)
    return "".join(f"# {part}\n{' ' * indent}" for part in comment) + code.format(value)


def _list(name: str, values: list[str]) -> str:
    line = f"{name} = {_text(values)}"
    if len(line) <= 100:
        return line
    lines = ["   "]
    for item in map(_text, values):
        if lines[-1].strip() and len(f"{lines[-1]} {item},") > 100:
            lines.append("   ")
        lines[-1] += f" {item},"
    return "\n".join([f"{name} = [", *lines, "]"])


def _text(value: Any) -> str:
    """Texts and lists of them as Python, with the quotes of this project."""
    return json.dumps(value, ensure_ascii=False)


def _wrapped(text: str) -> str:
    """Lines of a docstring."""
    return textwrap.fill(text, 97).replace("\\", r"\\").replace('"', r"\"")
