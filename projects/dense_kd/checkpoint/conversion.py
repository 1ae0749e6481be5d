"""Turn a file of mmdetection's into one of ours, and say what became of its keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor

from .checkpointer import replace_atomically
from .errors import CheckpointError
from .mmdet import convert_mmdet, is_dropped, is_mmdet, mmdet_detector, select_part
from .reading import read_content

GROUPS = {
    "backbone": "backbone.bottom_up.",
    "fpn": ("backbone.fpn_", "backbone.top_block."),
    "head": "head.",
}
"""{group of the coverage table: how its keys begin}"""


@dataclass
class Conversion:
    """What :func:`convert_file` did.

    Attributes:
        detector: of mmdetection; None if the file holds no head.
        weights: what was written.
        dropped: keys without a counterpart, because they hold nothing that is learned.
    """

    detector: str | None
    weights: dict[str, Tensor]
    dropped: list[str]

    def table(self) -> str:
        """Tensors and their elements per group, and the kinds of keys that were dropped."""
        rows = []
        for group, begin in GROUPS.items():
            tensors = [v for k, v in self.weights.items() if k.startswith(begin)]
            rows.append((group, len(tensors), sum(v.numel() for v in tensors)))
        rows.append(("all", len(self.weights), sum(v.numel() for v in self.weights.values())))
        table = tabulate(rows, headers=("group", "tensors", "elements"), intfmt=",")
        kinds = Counter(key.rpartition(".")[2] for key in self.dropped)
        dropped = ", ".join(f"{kind} x {count}" for kind, count in kinds.items())
        return f"{table}\ndropped: {dropped or 'nothing'}"


def convert_file(source: str, target: str, part: str | None = None) -> Conversion:
    """Read a checkpoint of mmdetection and write {"model": weights with our keys}.

    Args:
        source: anything :func:`read_weights` takes.
        target: a local path; it is written whole or not at all.
        part: "student" or "teacher" of a distiller's checkpoint.

    Raises:
        CheckpointError: ``source`` cannot be read, or is of no detector that we know.
    """
    content = read_content(source)
    if not is_mmdet(content):
        found = sorted(map(str, content))[:10] if isinstance(content, dict) else type(content)
        raise CheckpointError(
            f"{source} is no checkpoint of a detector of mmdetection: expected 'state_dict' with "
            f"keys under backbone., neck. and bbox_head., found {found}; detectron2's files and "
            "ours need no conversion"
        )
    state_dict = content["state_dict"]
    weights = convert_mmdet(state_dict, part=part, source=source)
    replace_atomically(target, lambda file: torch.save({"model": weights}, file))
    kept = select_part(state_dict, part, source)
    dropped = [key for key in kept if is_dropped(key)]
    return Conversion(mmdet_detector(kept), weights, dropped)
