"""Where weights come from: what the card of an export says of their run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import FINAL_CHECKPOINT
from ..engine.state.stored_config import at
from ..reporting.errors import ReportError
from ..reporting.runs import TrainedRun, last_weights, read_runs
from .errors import ExportError


@dataclass(frozen=True)
class Origin:
    """
    Attributes:
        weights: file or public name.
        run: their training; None if it is not known.
    """

    weights: str
    run: TrainedRun | None = None
    facts: dict[str, str] = field(default_factory=dict)


def origin_of(source: str) -> Origin:
    """The weights that ``source`` stands for, and their run.

    Args:
        source: a checkpoint, a public name, or the folder of a run, whose last weights are taken.

    Raises:
        ExportError: the folder holds no weights.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _with_run(source, folder.parent if folder.is_file() else None)
    weights = last_weights(folder)
    if weights is None:
        inner = sorted(path.parent.name for path in folder.glob(f"*/{FINAL_CHECKPOINT}"))
        hint = f"; it has runs in {', '.join(inner)}: give one of them" if inner else ""
        raise ExportError(
            f"{folder} holds no weights; expected the folder of a run, with {FINAL_CHECKPOINT} or "
            f"last_checkpoint, or a checkpoint{hint}"
        )
    return _with_run(str(weights), folder)


def _with_run(weights: str, folder: Path | None) -> Origin:
    if folder is None:
        return Origin(weights)
    try:
        [run] = read_runs([str(folder)])
    except (ReportError, ValueError):  # a file that lies anywhere, or a run of yacs
        return Origin(weights)
    return Origin(weights, run, _facts(run))


def _facts(run: TrainedRun) -> dict[str, str]:
    """What a reader wants to know of a training, in words."""
    methods = [
        f"model.methods.{name}"
        for name, call in (at(run.config, "model.methods") or {}).items()
        if isinstance(call, dict) and "_target_" in call and name != "balance"
    ]
    networks = [at(run.config, f"{method}.teacher.weights") for method in methods]
    facts = {
        "training data": _names(at(run.config, "dataloader.train.dataset.names")),
        "tested on": _names(at(run.config, "dataloader.test.dataset.names")),
        "iterations": f"{run.iterations:,}",
        "seed": run.seed,
        "methods": ", ".join(_method(at(run.config, method)) for method in methods),
        "teacher": _class(at(run.config, "model.teacher.model._target_")),
        "weights of the teacher": str(at(run.config, "model.teacher.weights") or ""),
        "weights of networks that teach": ", ".join(str(file) for file in networks if file),
    }
    return {name: text for name, text in facts.items() if text}


def _method(call: dict[str, Any]) -> str:
    """Its class, and that of a method inside."""
    inside = _class(at(call, "method._target_"))
    return _class(at(call, "_target_")) + (f" ({inside})" if inside else "")


def _class(name: Any) -> str:
    return name.rpartition(".")[2] if isinstance(name, str) else ""


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
