"""What ``tools/demo.py`` does: data, teacher, baseline and distilled students, and a report."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.data.datasets import load_coco_json

from .. import compat
from ..checkpoint import FINAL_CHECKPOINT, load_strictly, replace_atomically, write_text
from ..checkpoint.digests import file_digest
from ..config import get_config, get_config_file
from ..data.shapes import CLASSES, default_shapes_root, generate_shapes
from ..engine.building import count_parameters
from ..engine.fingerprint import cores, environment, result_settings
from ..engine.processes import Run, TrainingError, clock, read_metrics, say, train_together
from ..visualize.curves import save_curves
from ..visualize.drawing import ComparedImage, choose_images, compare
from ..visualize.report import METRICS, headline, table_rows, write_report

__all__ = ["DemoError", "Options", "run_demo"]

CONFIGS = {
    "teacher": "quickstart/teacher.py",
    "baseline": "quickstart/student.py",
    "distilled": "quickstart/distill.py",
}
PRECISIONS = ("float32", "bfloat16")
SCORE_THRESHOLD = 0.5
NUM_PICTURES = 8


class DemoError(TrainingError):
    """An option of the demo is wrong; the message says which."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run the demo.

    Attributes:
        script: ``tools/lazyconfig_train_net.py``.
        output: folder of the runs and the report.
        data: folder of datasets, whose ``shapes`` is (re)generated; None is detectron2's.
        seeds: the students are trained with the seeds 1 to this.
        train_images, val_images: how many to generate.
        teacher_iters, student_iters: None is what the configs say.
        precision: "float32" or "bfloat16"; None is the faster one on this machine.
        fresh: do not use earlier trainings again. Those of other settings, code or versions are
            removed, and trained again, in any case.
    """

    script: Path
    output: Path = Path("output/demo")
    data: Path | None = None
    seeds: int = 1
    train_images: int = 2000
    val_images: int = 500
    teacher_iters: int | None = None
    student_iters: int | None = None
    precision: str | None = None
    fresh: bool = False


def run_demo(options: Options) -> dict[str, Any]:
    """Generate, train, evaluate, compare and report; every step says what it does.

    Returns:
        what is in ``summary.json``.

    Raises:
        DemoError: an option is wrong.
        TrainingError: a training failed; the message ends with its log.
        Preempted: a signal came while trainings ran, which have saved; the same call goes on.
    """
    start = time.monotonic()
    for name in ("seeds", "train_images", "val_images", "teacher_iters", "student_iters"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise DemoError(f"{name} is {value}, expected 1 or more")
    if options.precision is None:
        faster = "bfloat16" if compat.cpu_has_bfloat16() else "float32"
        options = dataclasses.replace(options, precision=faster)
    if options.precision not in PRECISIONS:
        raise DemoError(f"precision is {options.precision!r}, expected {' or '.join(PRECISIONS)}")
    num_cores = cores()
    root = Path(default_shapes_root()) if options.data is None else options.data / "shapes"
    say(f"generating {options.train_images} + {options.val_images} images in {root}, unless done")
    data = {}
    try:
        for split in ("train", "val"):
            count = getattr(options, f"{split}_images")
            annotations = Path(generate_shapes(root, split, count))
            data[split] = json.loads(annotations.read_text())["info"]["settings"]
    except ValueError as error:
        raise DemoError(str(error)) from error

    teacher = _plan(options, root, data, "teacher", threads=num_cores)
    train_together([teacher], fresh=options.fresh, again=True)
    students: dict[int, dict[str, Run]] = {}
    for seed in range(1, options.seeds + 1):
        students[seed] = {
            name: _plan(options, root, data, name, max(1, num_cores // 2), seed, of)
            for name, of in (("baseline", None), ("distilled", teacher))
        }
        # At the same time, so that both have the same share of a machine that others use, too.
        train_together(list(students[seed].values()), fresh=options.fresh, again=True)

    say("drawing the report")
    summary = _summary(teacher, students, options)
    curves = {
        "teacher": [read_metrics(teacher.folder)],
        "baseline": [read_metrics(runs["baseline"].folder) for runs in students.values()],
        "distilled": [read_metrics(runs["distilled"].folder) for runs in students.values()],
    }
    pictures = _pictures(root, teacher, students[1])
    replace_atomically(str(options.output / "curves.png"), lambda file: save_curves(file, curves))
    report = options.output / "report.html"
    write_report(str(report), summary, curves, pictures, score_threshold=SCORE_THRESHOLD)
    content = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    write_text(options.output / "summary.json", content)
    for name, cells in table_rows(summary):
        widths = [7] * len(METRICS) + [12] * (len(cells) - len(METRICS))
        print(f"{name:18}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths)).rstrip())
    print(headline(summary))
    say(f"done in {clock(time.monotonic() - start)}; the report is {report}")
    return summary


def _plan(
    options: Options,
    root: Path,
    data: dict[str, Any],
    name: str,
    threads: int,
    seed: int | None = None,
    teacher: Run | None = None,
) -> Run:
    """Describe a training, with all that its result depends on."""
    folder = options.output / name if seed is None else options.output / f"seed{seed}" / name
    iterations = options.teacher_iters if name == "teacher" else options.student_iters
    overrides = [] if iterations is None else [f"train.max_iter={iterations}"]
    overrides += [] if seed is None else [f"train.seed={seed}"]
    if options.precision != "float32":
        overrides += ["train.amp.enabled=True", f"train.amp.dtype={options.precision}"]
    config = LazyConfig.load(get_config_file(CONFIGS[name]))
    config = LazyConfig.apply_overrides(config, overrides)
    settings = {
        "data": data,
        **result_settings(config),
    }
    overrides.append(f"train.output_dir={folder.absolute()}")
    if teacher is not None:
        weights = (teacher.folder / FINAL_CHECKPOINT).absolute()
        # Images are flipped at most, so after some epochs the teacher has seen them all.
        overrides += [f"model.teacher.weights={weights}", "model.teacher.cache=memory"]
        settings["teacher"] = file_digest(weights)
    return Run(
        title=name if seed is None else f"{name}, seed {seed}",
        folder=folder,
        command=[
            *(str(options.script), "--config-file", get_config_file(CONFIGS[name])),
            *overrides,
        ],
        iterations=config.train.max_iter,
        settings=settings,
        environment={**environment(threads), "DETECTRON2_DATASETS": str(root.absolute().parent)},
    )


def _summary(teacher: Run, students: dict[int, dict[str, Run]], options: Options) -> dict[str, Any]:
    parameters = {
        name: count_parameters(
            get_config(CONFIGS["teacher" if name == "teacher" else "baseline"]).model
        )
        for name in CONFIGS
    }
    seeds: dict[str, Any] = {}
    for seed, runs in students.items():
        results: dict[str, Any] = {
            name: _result(run, parameters[name]) for name, run in runs.items()
        }
        results["gain_AP"] = _gain(results)
        seeds[str(seed)] = results
    summary: dict[str, Any] = {"teacher": _result(teacher, parameters["teacher"])}
    for name in ("baseline", "distilled"):
        each = [results[name] for results in seeds.values()]
        summary[name] = {
            key: _mean([results[key] for results in each]) for key in (*METRICS, "seconds")
        }
        summary[name].update({key: each[0][key] for key in ("parameters", "iterations")})
    summary["gain_AP"] = _gain(summary)
    summary["seeds"] = seeds
    summary["settings"] = {
        "training images": options.train_images,
        "validation images": options.val_images,
        "seeds": ", ".join(seeds),
        "precision of the trainings": options.precision,
        "cores": f"{cores()}, shared by the two students, which train at the same time",
        **teacher.settings["versions"],
    }
    return summary


def _result(run: Run, parameters: int) -> dict[str, Any]:
    return {
        **{metric: run.metrics.get(f"bbox/{metric}") for metric in METRICS},
        "parameters": parameters,
        "iterations": run.iterations,
        "seconds": round(run.seconds, 1),
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _gain(results: dict[str, Any]) -> float | None:
    before, after = results["baseline"]["AP"], results["distilled"]["AP"]
    return None if before is None or after is None else after - before


def _pictures(root: Path, teacher: Run, students: dict[str, Run]) -> list[ComparedImage]:
    detectors = {}
    for name, run in {"teacher": teacher, **students}.items():
        # A distilled student is a bare student: it needs neither teacher nor methods.
        config = CONFIGS["teacher" if name == "teacher" else "baseline"]
        detectors[name] = instantiate(get_config(config).model)
        load_strictly(detectors[name], str(run.folder / FINAL_CHECKPOINT))
    # The name only tells which category id is which class.
    dataset = load_coco_json(
        str(root / "annotations" / "instances_val.json"), str(root / "val"), "shapes_val"
    )
    images = choose_images(dataset, NUM_PICTURES)
    return compare(images, detectors, CLASSES, score_threshold=SCORE_THRESHOLD)
