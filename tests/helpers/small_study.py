"""A study on a few generated images, whose cells take seconds, and results like those of cells."""

from __future__ import annotations

import copy
from typing import Any

CONTENT: dict[str, Any] = {
    "title": "A small study",
    "evaluate": ["study_one", "study_two"],
    "seeds": [1, 2],
    "overrides": [
        "dataloader.train.dataset.names=study_train",
        "dataloader.train.total_batch_size=2",
        "train.max_iter=2",
        "train.eval_period=1",
        "train.checkpointer.period=1",
        "model.test_score_thresh=0.0",  # or nothing would be found
    ],
    "diagnostics": 1,
    "pairs": {
        "fcos": {
            "teacher": "quickstart/teacher",
            "student": "quickstart/student",
            "methods": {
                "none": None,
                "kd": {"methods": {"KD": {"cls_weight": 1.0}}},
                "pgd": {"methods": {"PGD": {"alpha": 0.04}}, "init_student": True},
            },
        }
    },
}


def dsi_from(weights: str | None) -> dict[str, Any]:
    """A method that has a network of its own, and needs no teacher."""
    teacher = {
        "_target_": "dense_kd.FeatureTeacher",
        "model": {"_target_": "helpers.feature_networks.OneMap"},
        "weights": weights,
        "pixel_mean": [127.5, 127.5, 127.5],
        "pixel_std": [64.0, 64.0, 64.0],
    }
    return {"DSI": {"weight": 2.0, "teacher": teacher}}


def result_of(cell: Any, ap: float, **entries: Any) -> dict[str, Any]:
    """What a cell could have given, with everything equal that has to be in a block."""
    taught = cell.teacher is not None
    found: dict[str, Any] = {
        "format": 1,
        "cell": cell.as_json(),
        "config": "c0ffee",
        "teacher": "7eac4e20" if taught else None,
        "initial": {"all": "inherited" if cell.init_student else "a", "backbone": "b"},
        "seen": "images",
        "processes": 1,
        "seconds": 90.0,
        "cpu_seconds": 90.0 if taught else 60.0,
        "weights": "7eac4e20" if cell.method == "teacher" else f"of {cell.name}",
        "iterations": 2,
        "parameters": 1000,
        "metrics": {"pooled": {"AP": ap, "AP50": ap + 20, "APs": ap, "APm": None, "APl": None}},
        "per_class": {"circle": {"AP": ap + 1}, "star": {"AP": None}},
        "error_types": {"Cls": 3.0, "Loc": 10 - ap / 10, "Both": 0.0, "Dupe": 0.0, "Bkg": 1.0,
                        "Miss": 2.0, "FalsePos": 4.0, "FalseNeg": 5.0},
        "calibration": {"ece": 0.25, "mce": 0.5, "bins": [], "per_class": {}},
        "curve": [[1, ap / 2, ap], [2, ap, ap + 20]],
        "shares": {"detection": 0.75, "kd": 0.25} if taught else {},
        "factors": {},
        "peak_memory": 1_000_000,
        "threads": 1,
        "load": {"before": [0.5], "after": [0.5]},
        "code": "0123",
        "date": "2026-11-30T12:00:00+00:00",
        "commit": "0123456789abcdef",
        "changed": False,
        "versions": {"dense_kd": "0.1.0", "torch": "2.12.1"},
        "machine": {"system": "Linux", "cpu": "a processor", "cores": 2, "gpu": None},
    }  # fmt: skip
    return copy.deepcopy({**found, **entries})
