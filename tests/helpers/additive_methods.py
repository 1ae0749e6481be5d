"""Of which methods the losses of a batch are the mean of those of its images, and of which not."""

from __future__ import annotations

from typing import Any

from dense_kd.methods.pgd.weighting import FOREGROUNDS
from helpers.method_cases import ALL

Options = dict[str, Any]
_ADDITIVE: list[tuple[str, Options]] = [
    ("FitNet", {}),  # images of one size
    ("LD", {"cls_weight": 0.0, "normalize": "images"}),
    ("MGD", {"masked_ratio": 0.0}),
    *[("PGD", {"foreground": foreground}) for foreground in FOREGROUNDS],
    ("PGD", {"branches": ("neck",)}),
]
NOT_ADDITIVE: list[tuple[str, Options, str]] = [
    ("BCKD", {}, "it is divided by the positives of the batch"),
    ("CanKD", {}, "its blocks normalise over the batch"),
    ("CrossKD", {}, "it is divided by the scores and has the statistics of the batch"),
    ("DeFeat", {}, "its means are over the cells of the batch, of which images have more or less"),
    ("FGFI", {}, "its mean is over the cells of the batch near objects"),
    ("FKD", {}, "its norms are not squared"),
    ("FRS", {}, "it is divided by the scores of the batch"),
    ("FitNet", {"region": "objects"}, "its mean is over the cells of the batch in objects"),
    ("FitNet", {"region": "positives"}, "its mean is over the cells of the batch with a positive"),
    ("FromTeacher", {}, "the method inside is CrossKD"),
    ("GIBox", {"nms_thresh": 0.7}, "its mean is over the chosen cells of the batch"),
    ("KD", {}, "it is divided by the positives of the batch"),
    ("LD", {"cls_weight": 0.0}, "its terms of boxes are sums"),
    ("LD", {"main_weight": 0.0, "vlr_weight": 0.0}, "means over the positives of the batch"),
    ("MGD", {}, "its masks are random"),
    ("PGD", {"compat": "released"}, "each image has the sum of the masks of all"),
    ("PKD", {}, "it has the statistics of the batch"),
]
_listed = {name for name, *_ in (*_ADDITIVE, *NOT_ADDITIVE)}
ADDITIVE = [*_ADDITIVE, *((name, {}) for name in ALL if name not in _listed)]
"""A method that is in no list is taken to be additive with its own options."""
