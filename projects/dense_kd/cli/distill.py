"""``dense-kd distill``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..pipeline.options import DistillOptions, type_of

HELP = "from a folder of own images to a distilled detector"
EXAMPLES = [
    "dense-kd distill photos --student gfl_r18 --teacher gfl_r101 --method bckd",
    "dense-kd distill photos --dry-run  # what it would do, and why",
    "dense-kd distill photos --student fcos_small --teacher fcos_small32 --method pkd --compare",
    "dense-kd distill photos --unlabelled more_photos  # the teacher says what is in them",
    "dense-kd distill photos --num-gpus 8 --short-edge 640 --output output/photos",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data, and every option of :class:`DistillOptions` with its default."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder (or its YAML) with images and labels: COCO JSON, Pascal VOC or YOLO",
    )
    for field in dataclasses.fields(DistillOptions):
        flag, kind = "--" + field.name.replace("_", "-"), type_of(field)
        settings: dict[str, Any] = {"help": field.metadata["help"], "default": field.default}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            settings.update(type=kind, metavar=_METAVARS[kind])
            if field.default is not None:
                settings["help"] += f" ({field.default})"
        parser.add_argument(flag, **settings)


_METAVARS = {str: "NAME", int: "N", float: "X"}


def run(args: argparse.Namespace) -> None:
    """Distil."""
    from ..engine.stopping import ends_as_preempted
    from ..pipeline.run import distill

    names = [field.name for field in dataclasses.fields(DistillOptions)]
    with ends_as_preempted():
        distill(args.data, **{name: getattr(args, name) for name in names})
