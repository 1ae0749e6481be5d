"""Random sets of boxes, with what evaluations trip over."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO


def random_set(seed: int) -> tuple[COCO, list[dict]]:
    """Annotations and results: crowds, equal scores, empty images, an absent class."""
    random = np.random.default_rng(seed)
    categories = [{"id": i, "name": f"c{i}"} for i in (1, 2, 4, 7)]
    images = [{"id": 10 * i + 3, "width": 640, "height": 480} for i in range(8)]
    annotations, results = [], []
    for image in images[1:]:  # nothing is in the first
        for _ in range(random.integers(0, 7)):
            size = random.choice([12, 50, 150], 2) * random.uniform(0.7, 1.3, 2)
            corner = random.uniform(0, (640, 480) - size)
            box = [*corner.round(2), *size.round(2)]
            entry = {"image_id": image["id"], "category_id": int(random.choice([1, 2, 4]))}
            annotations.append(
                {**entry, "id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3],
                 "iscrowd": int(random.random() < 0.15)}
            )  # fmt: skip
            for _ in range(random.integers(0, 4)):
                moved = [round(v + random.normal(0, 4), 2) for v in box]
                score = random.choice([0.3, 0.5, round(random.random(), 3)])
                results.append({**entry, "bbox": moved, "score": float(score)})
    for _ in range(12):
        image, category = random.choice([i["id"] for i in images]), random.choice([1, 2, 4, 7])
        box = [*random.uniform(0, 300, 2).round(2), *random.uniform(5, 90, 2).round(2)]
        results.append({"image_id": int(image), "category_id": int(category), "bbox": box,
                        "score": round(float(random.random()), 2)})  # fmt: skip
    truth = COCO()
    truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth, results
