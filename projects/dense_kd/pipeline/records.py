"""What an output folder was made with, so that nothing else is mixed into it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ..data.of_distillation import RECORD
from ..engine.checks.files import name_problems
from ..json_files import read_json, write_json
from .errors import PipelineError
from .plan import Plan

__all__ = ["check_output", "data_digest", "write_record"]

# They change neither the trainings nor their data; a comparison can be added later.
_WITHOUT_EFFECT = ("output", "fresh", "dry_run", "compare", "num_workers", "checkpoint_period")
_NUMBERS_WITHOUT_EFFECT = ("workers",)
# Where that is of which there is a digest.
_PLACES = ("data", "unlabelled")
_DIGEST = "images and labels"
_OF_UNLABELLED = ("unlabelled", "unlabelled_ratio", "score_thresh")
# Folders of before they existed are gone on with.
_IF_GIVEN = ("balance",)


def check_output(plan: Plan) -> None:
    """Whether the output folder may be written to.

    Raises:
        PipelineError: it cannot be written to, holds something else, or a distillation of other
            data or options; the message says what differs.
    """
    folder = plan.output
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"output={folder} is a file; expected a folder")
    for problem in name_problems("output", str(folder)):
        raise PipelineError(problem)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    before = read_json(folder / RECORD)
    if not before:
        raise PipelineError(
            f"output={folder} holds something else than a distillation of this command; give "
            "another folder"
        )
    now = record(plan)
    # Folders of before have more in their records.
    left_out = {*_WITHOUT_EFFECT, *_NUMBERS_WITHOUT_EFFECT}
    if before.get("data", {}).get(_DIGEST) == now["data"][_DIGEST]:
        left_out |= {*_PLACES}
    lines = [
        f"    {name}: {old.get(name)!r} -> {new.get(name)!r}"
        for old, new in ((before.get(part, {}), now[part]) for part in now)
        for name in {**old, **new}
        if name not in left_out and old.get(name) != new.get(name)
    ]
    if plan.options.fresh or not lines:
        return
    raise PipelineError(
        f"output={folder} was made with other data or options (there -> now):\n"
        + "\n".join(lines)
        + "\nGive them as they were to go on, another output, or fresh (--fresh) to give up what "
        "is there"
    )


def record(plan: Plan) -> dict[str, dict[str, Any]]:
    """Of a plan, in JSON types."""
    options = {
        name: value
        for name, value in dataclasses.asdict(plan.options).items()
        if name not in _WITHOUT_EFFECT
        and (plan.unlabelled or name not in _OF_UNLABELLED)
        and (value is not None or name not in _IF_GIVEN)
    }
    numbers = {
        name: number.value
        for name, number in plan.numbers.items()
        if name not in _NUMBERS_WITHOUT_EFFECT
    }
    for detector in (plan.teacher, plan.student):
        for name, number in detector.numbers.items():
            numbers[f"{name} of the {detector.role}"] = number.value
    data = {"data": str(Path(plan.data.root).absolute()), _DIGEST: data_digest(plan)}
    return {"data": data, "options": options, "numbers": numbers}


def write_record(plan: Plan) -> None:
    """Note what the output folder is made with."""
    write_json(plan.output / RECORD, record(plan))


def data_digest(plan: Plan) -> str:
    """Of all images (names and sizes of their files) and what is known of them."""
    digest = hashlib.sha256()
    root = Path(plan.data.root)
    for part in ("train", "val", "test"):
        for image in getattr(plan.data, part) or ():
            file = Path(image["file_name"])
            name = file.relative_to(root) if file.is_relative_to(root) else file
            known = {**image, "file_name": name.as_posix(), "bytes": file.stat().st_size}
            digest.update(json.dumps([part, known], default=str, sort_keys=True).encode())
    if plan.unlabelled is not None:
        for image in plan.unlabelled.images:
            file = Path(image["file_name"])
            name = file.relative_to(plan.unlabelled.folder)
            text = f"{name} {file.stat().st_size}"
            digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
