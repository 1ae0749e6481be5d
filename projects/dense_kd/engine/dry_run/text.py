"""A dry run as a page of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import BatchFacts, DataFacts, DryRun, ModelFacts, ScoreFacts

_WIDTH = 13


def page(run: DryRun) -> str:
    """All of a dry run; parts that could not be tried are left out."""
    sections = (
        ("data", _data(run)),
        ("models", _models(run)),
        ("pyramid", _pyramid(run)),
        ("losses", _losses(run)),
        ("balance", _balance(run)),
        ("step", _step(run)),
        ("schedule", _schedule(run)),
        ("teacher", _teacher(run)),
        ("evaluation", _evaluation(run)),
        ("warnings", _points(run.warnings)),
        ("not tried", _points([", ".join(run.not_tried)] if run.not_tried else [])),
    )
    lines = []
    for title, content in sections:
        found = [*content]
        lines += _titled(title, found) if found else []
    if run.fits:
        return "\n".join([*lines, "fits"])
    number = len(run.problems)
    lines.append(f"does not fit: {number} problem{'' if number == 1 else 's'}")
    return "\n".join([*lines, *_points(run.problems)])


def duration(seconds: float) -> str:
    """As 250 ms, 2.5 s, 12 s, 3 min 5 s, 2 h 7 min or 3 d 4 h."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next(i for i, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    heads = [title, *[""] * len(lines)]
    return [f"{head:<{_WIDTH}}{line}" for head, line in zip(heads, lines)]


def _points(lines: Iterable[str]) -> list[str]:
    return [part for line in lines for part in f"- {line}".replace("\n", "\n  ").splitlines()]


def _table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as they need to be; those of ``right`` end together."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _data(run: DryRun) -> Iterator[str]:
    for part, facts in (("train", run.train), ("test", run.test)):
        if facts is None:
            continue
        yield f"{part:<6} {', '.join(facts.names) or 'a loader of its own'}{_contents(facts)}"
        if facts.classes:
            yield f"{'':<6} {_named(facts.classes)}"
        if facts.batch:
            yield f"{'':<6} {_batch(facts.batch)}"


def _contents(facts: DataFacts) -> str:
    parts = []
    if facts.num_images is not None:
        empty = f" ({facts.num_empty:,} without objects)" if facts.num_empty else ""
        parts.append(f"{facts.num_images:,} images{empty}")
    if facts.num_objects is not None:
        parts.append(f"{facts.num_objects:,} objects")
    return f": {', '.join(parts)}" if parts else ""


def _named(names: Sequence[str], limit: int = 8) -> str:
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    plural = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {plural}: {', '.join(names[:limit])}{more}"


def _batch(batch: BatchFacts) -> str:
    sizes = _size(batch.smallest)
    if batch.largest != batch.smallest:
        sizes += f" to {_size(batch.largest)}"
    kind = " ".join(filter(None, (batch.image_format, batch.dtype)))
    objects = "" if batch.num_objects is None else f", {batch.num_objects} objects"
    without = f", {batch.num_unlabelled} without labels" if batch.num_unlabelled else ""
    return f"tried: {batch.num_images} images of {sizes}, {kind}{objects}{without}"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _models(run: DryRun) -> list[str]:
    return _table([_model(facts) for facts in run.models], right=[2]) if run.models else []


def _model(facts: ModelFacts) -> tuple[str, ...]:
    about = []
    if facts.num_classes is not None:
        about.append(_named(facts.class_names) if facts.class_names else _classes(facts))
    if facts.input_format:
        about.append(facts.input_format)
    if facts.name == "student" and facts.trained < facts.parameters:
        about.append(f"{_millions(facts.trained)} of them trained")
    if facts.classes:
        about.append(f"compares {facts.classes}")
    if facts.warmup_iters:
        about.append(f"warm-up over {facts.warmup_iters:,} iterations")
    if facts.first_iter or facts.last_iter is not None:
        end = "" if facts.last_iter is None else f", before {facts.last_iter:,}"
        about.append(f"from iteration {facts.first_iter:,}{end}; tried as if it were that far")
    if facts.weights:
        about.append(f"from {facts.weights}")
    return facts.name, facts.kind, _millions(facts.parameters), ", ".join(about)


def _classes(facts: ModelFacts) -> str:
    return f"{facts.num_classes} classes" if facts.num_classes != 1 else "1 class"


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _pyramid(run: DryRun) -> Iterator[str]:
    if run.input_shape:
        yield f"of a padded batch of {_size(run.input_shape)}"
    if run.levels:
        teacher = any(level.teacher for level in run.levels)
        head = ("level", "stride", "student", "teacher")
        rows = [
            (
                level.name,
                "?" if level.stride is None else str(level.stride),
                _size(level.student),
                _size(level.teacher) if level.teacher else "none",
            )
            for level in run.levels
        ]
        columns = 4 if teacher else 3
        yield from _table([row[:columns] for row in (head, *rows)], right=[1])


def _losses(run: DryRun) -> Iterator[str]:
    if not run.losses:
        return
    measured = any(loss.share is not None for loss in run.losses)
    head = ("term", "value", "gradient", "share")
    rows = [
        (
            loss.name,
            f"{loss.value:.4g}",
            "" if loss.gradient is None else f"{loss.gradient:.3g}",
            "" if loss.share is None else f"{100 * loss.share:.1f} %",
        )
        for loss in run.losses
    ]
    columns = 4 if measured else 2
    yield from _table([row[:columns] for row in (head, *rows)], right=[1, 2, 3])
    if measured:
        yield "gradient: its norm at the student's feature maps above, also through the head;"
        yield "share: in the sum of these norms; both without the warm-ups of methods"


def _balance(run: DryRun) -> Iterator[str]:
    for facts in run.balance:
        has = "no share" if facts.share is None else f"{100 * facts.share:.3g} %"
        yield (
            f"{facts.name}: {has} with its own weights, which are times {facts.factor:.3g} above; "
            f"target {100 * facts.target:.3g} %"
        )
    if run.balance:
        yield "shares of the gradient's L1 norm, a method and detection alone; a run measures on"


def _step(run: DryRun) -> Iterator[str]:
    step = run.step
    if step is None:
        return
    counted = f"median of {step.num_steps}" if step.num_steps > 1 else "one"
    yield (
        f"{duration(step.seconds)} for {step.num_images} images on {run.device} ({counted}), "
        f"{duration(step.waiting)} of it waiting for them"
    )
    if step.memory is None:
        yield f"memory {step.memory_of}"
    else:
        yield f"peak memory {step.memory / 2**20:,.0f} MB ({step.memory_of})"
    if run.total_seconds is not None and run.schedule is not None:
        schedule = run.schedule
        yield f"{schedule.max_iter:,} iterations take about {duration(run.total_seconds)}"
        if run.evaluation_seconds is not None and schedule.num_evaluations:
            times = "once" if schedule.num_evaluations == 1 else f"{schedule.num_evaluations} times"
            yield f"and an evaluation about {duration(run.evaluation_seconds)}, {times}"
    whole = run.schedule.images_per_iteration if run.schedule else None
    if whole is not None and whole != step.num_images:
        yield f"an iteration of the run has {whole} images, over all its processes"


def _schedule(run: DryRun) -> Iterator[str]:
    schedule = run.schedule
    if schedule is None:
        return
    length = f"{schedule.max_iter:,} iterations"
    if schedule.images_per_iteration:
        length += f" of {schedule.images_per_iteration} images"
    if schedule.epochs is not None:
        length += f", {schedule.epochs:.3g} epochs"
    yield f"{length}, {schedule.optimizer}, {schedule.precision}"
    yield from _table(
        [(f"rate {rate:.3g}", f"at {place:,}", what) for place, rate, what in schedule.rates],
        right=[1],
    )
    norm = run.step.gradient_norm if run.step else None
    clip = schedule.clip_grad
    clipped = "not clipped" if clip is None else f"clipped to a norm of {clip:g}"
    first = "" if norm is None else f"; the first batch gives {norm:.3g}"
    yield f"gradients are {clipped}{first}"


def _teacher(run: DryRun) -> Iterator[str]:
    for place, score in run.teachers.items():
        yield from ([f"{place}:"] if place != "teacher" else [])
        yield from _score(score)


def _score(score: ScoreFacts) -> Iterator[str]:
    yield (
        f"on {score.num_images} test images with {score.num_objects} objects: "
        f"{score.num_detections} detections, mean best score {score.best_score:.2f}"
    )
    if score.ap is not None and score.ap50 is not None:
        yield (
            f"AP {score.ap:.1f}, AP50 {score.ap50:.1f} "
            f"({score.ap50_any_class or 0:.1f} if classes do not matter)"
        )
    elif score.ap50_any_class is not None:
        yield (
            f"AP50 {score.ap50_any_class:.1f} if classes do not matter; which of them correspond "
            "is unknown"
        )
    else:
        yield "AP is not defined: these images have no objects"


def _evaluation(run: DryRun) -> Iterator[str]:
    found = run.evaluation
    if found is None:
        return
    yield f"the model as it starts, on {found.num_images} test images: {found.how}"
    defined = [f"{name} {x:.1f}" for name, x in found.metrics.items() if x is not None]
    if defined:
        yield ", ".join(defined)
    elif found.metrics:
        yield f"{', '.join(found.metrics)} are not defined (without detections they are not)"
