#!/usr/bin/env python
"""What methods cost against pixels, images, boxes and classes, as numbers and as a figure.

Student and teacher are GFL with ResNet-18, whose heads are those of any GFL; what is timed are the
methods' losses forward and backward between two passes, and a training step of the student beside
them, medians of rounds in which each runs once. Memory is the larger peak of the two. One number
varies at a time; the others are a batch of one image of 320 x 320 with 7 boxes, and 80 classes.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dense_kd import get_config
from dense_kd.benchmark.batches import synthetic_batch
from dense_kd.benchmark.machine import circumstances, load_average
from dense_kd.benchmark.memory import peak_memory
from dense_kd.benchmark.models import Models, set_classes
from dense_kd.benchmark.timing import timed_rounds
from dense_kd.benchmark.work import STUDENT, Part, Work, backward_of, forward_of
from dense_kd.json_files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "scaling.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scaling.png"
METHODS = ("bckd", "crosskd", "ld", "pgd", "tid", "fgd", "pkd")
CONFIG = "{}/gfl_r101_r50_1x.py"
DETECTORS = "bckd/gfl_r18_r18_1x.py"
BASE = {"side": 320, "images": 1, "boxes": 7, "classes": 80}
AXES = {
    "side": (192, 320, 512, 768, 1056),
    "images": (1, 2, 4, 8),
    "boxes": (1, 7, 50, 200, 500),
    "classes": (3, 20, 80, 400, 1203),
}
"""{what varies: its values}; images are squares."""
LABELS = {
    "side": "pixels of an image",
    "images": "images of a batch",
    "boxes": "boxes of an image",
    "classes": "classes",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("axes", nargs="*", metavar="AXIS", help=f"default: {' '.join(AXES)}")
    option("--threads", type=int, default=1, help="of torch (%(default)s)")
    option("--rounds", type=int, default=5, help="that count (%(default)s)")
    option("--results", type=Path, default=RESULTS, help="default: %(default)s")
    option("--picture", type=Path, default=PICTURE, help="default: %(default)s")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    # What a training would be warned of costs nothing.
    logging.getLogger("dense_kd").setLevel(logging.ERROR)
    for axis in args.axes or AXES:
        points = []
        before = load_average()
        for value in AXES[axis]:
            points.append({"value": value, **measured({**BASE, axis: value}, args.rounds)})
            print(axis, value, _line(points[-1]), flush=True)
        content = {**read_json(args.results), **circumstances(torch.device("cpu"))}
        content.update(threads=args.threads, rounds=args.rounds, base=BASE)
        loads = {"load_before": before, "load_after": load_average()}
        content.setdefault("axes", {})[axis] = {**loads, "points": points}
        write_json(args.results, content)
    draw(read_json(args.results)["axes"], args.picture)


def measured(numbers: dict[str, int], rounds: int) -> dict[str, Any]:
    """{"student": seconds, "methods": {name: {"seconds", "memory" in bytes}}}."""
    device = torch.device("cpu")
    models = Models(device)
    size = (numbers["side"], numbers["side"])
    batch = synthetic_batch(numbers["images"], size, numbers["boxes"], numbers["classes"], 3)
    detectors = get_config(DETECTORS).model
    parts: dict[Any, Part] = {}
    for method in METHODS:
        cfg = get_config(CONFIG.format(method))
        cfg.train.device = "cpu"
        cfg.model.student, cfg.model.teacher = detectors.student, detectors.teacher
        set_classes(cfg, numbers["classes"])
        work = Work(cfg, models.distiller(cfg), batch)
        own = work.parts()
        for name in work.methods:
            parts[method, forward_of(name)] = own[forward_of(name)]
            parts[method, backward_of(name)] = own[backward_of(name)]
        parts[STUDENT, STUDENT] = own[STUDENT]
    seconds = timed_rounds(parts, device, rounds=rounds, warmup=1)
    methods = {}
    for method in METHODS:
        of_it = [key for key in parts if key[0] == method]
        peaks = []
        for key in of_it:
            parts[key].prepare()
            peaks.append(peak_memory(parts[key].run, device))
        each_round = zip(*(seconds[key] for key in of_it))
        methods[method] = {
            "seconds": statistics.median(sum(values) for values in each_round),
            "memory": max(peaks),
        }
    return {"student": statistics.median(seconds[STUDENT, STUDENT]), "methods": methods}


def draw(axes: dict[str, Any], file: Path) -> None:
    """Seconds above, memory below; logarithms of both, and how a line through 0 rises."""
    figure = Figure(figsize=(3.6 * len(axes), 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(axes), squeeze=False, sharey="row")
    for column, (axis, found) in enumerate(axes.items()):
        points = found["points"]
        x = [p["value"] ** 2 if axis == "side" else p["value"] for p in points]
        for row, (what, unit) in enumerate((("seconds", 1e3), ("memory", 2**-20))):
            panel = panels[row, column]
            panel.set(xscale="log", yscale="log")
            for method in METHODS:
                y = [p["methods"][method][what] * unit for p in points]
                panel.plot(x, y, marker="o", markersize=3, label=method)
            if what == "seconds":
                y = [p["student"] * unit for p in points]
                panel.plot(x, y, color="grey", linestyle="--", label="step of the student")
            limits = panel.get_ylim()
            most = max(points[-1]["methods"][m][what] for m in METHODS) * unit
            line = [most * value / x[-1] for value in x]
            panel.plot(x, line, color="grey", linestyle=":", label="in proportion")
            panel.set_ylim(limits)
            panel.set_xlabel(LABELS[axis])
            values = [p["value"] for p in points]
            panel.set_xticks(x, [f"{v}²" if axis == "side" else str(v) for v in values])
            panel.xaxis.set_minor_locator(NullLocator())
    panels[0, 0].set_ylabel("losses, forward and backward, in ms")
    panels[1, 0].set_ylabel("peak of memory in MiB")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(str(file))
    print(f"wrote {file}")


def _line(point: dict[str, Any]) -> str:
    seconds = {STUDENT: point["student"]}
    seconds.update({name: found["seconds"] for name, found in point["methods"].items()})
    return ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items())


if __name__ == "__main__":
    main()
