#!/usr/bin/env python
"""Images of one's own in Python: read, looked at, registered; a teacher learns them, then teaches.

    python examples/own_dataset.py photos train.max_iter=300

`photos` is a folder with labels in COCO's, Pascal VOC's or YOLO's format. `dense-kd distill photos`
does all of this and more; this program is for those who want a step in between to be another one.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.utils.logger import setup_logger

from dense_kd import own_dataloader
from dense_kd.data import read_dataset, register_annotations, write_annotations
from dense_kd.engine import load_config, train
from dense_kd.engine.checks.overrides import apply_overrides

OUTPUT = "output/own_dataset"
SHORT_EDGE, LONG_EDGE, BATCH = 128, 256, 8


def main(argv: Sequence[str] | None = None) -> None:
    """The folder first, then overrides of both configs."""
    folder, *overrides = sys.argv[1:] if argv is None else argv
    setup_logger(name="dense_kd")

    # Splits where there is no validation set, mends or drops what is broken, and says so.
    dataset = read_dataset(folder)
    print(f"{len(dataset.train)} images to learn from, {len(dataset.val)} to test with")
    print(dataset.split, dataset.problems.summary(), sep="\n")
    objects = Counter(
        dataset.classes[each["category_id"]]
        for image in dataset.train
        for each in image["annotations"]
    )
    print("objects:", dict(objects.most_common()))

    # COCO JSON beside the runs, and a name in detectron2's catalog for each part.
    names = {}
    for part, file in write_annotations(dataset, Path(OUTPUT, "labels")).items():
        names[part] = f"own_{part}"
        register_annotations(names[part], file, dataset.root)
    assert len(DatasetCatalog.get(names["train"])) == len(dataset.train)

    images = own_dataloader(
        train=names["train"],
        test=names["val"],
        short_edge=SHORT_EDGE,
        long_edge=LONG_EDGE,
        batch_size=BATCH,
        image_format="BGR",
        seed=1,
        num_workers=0,
    )
    alone, distilled = load_config("quickstart/teacher"), load_config("quickstart/distill")
    teacher = distilled.model.teacher
    for detector in (alone.model, teacher.model, distilled.model.student):
        detector.num_classes, detector.class_names = len(dataset.classes), list(dataset.classes)
    teacher.weights = f"{OUTPUT}/teacher/model_final.pth"  # which the first training writes
    for name, cfg in {"teacher": alone, "student": distilled}.items():
        cfg.dataloader = images
        cfg.train.output_dir = f"{OUTPUT}/{name}"
        train(argparse.Namespace(resume=False), apply_overrides(cfg, overrides))


if __name__ == "__main__":
    main()
