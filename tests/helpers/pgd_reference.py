"""The stored cases of PGD's original implementation: a teacher's maps and the masks they give."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor

from dense_kd.detectors import DistanceCoder
from dense_kd.detectors.boxes.coders import DeltaCoder
from dense_kd.detectors.boxes.distributions import expected_distances
from dense_kd.outputs import DensePass
from helpers.builders import golden, golden_config, instances

NUM_LEVELS = 5
STRIDES = [8, 16, 32, 64, 128]
TOPK = {"gfl": 30, "atss": 9, "fcos": 30}
CODERS = {
    "gfl": DistanceCoder(activation="identity", prior_scale=8),
    "atss": DeltaCoder(weights=(10.0, 10.0, 5.0, 5.0)),
    "fcos": DistanceCoder(activation="identity", normalize_by_size=False),
}


class MapsReference:
    """``name`` is "gfl", "atss" or "fcos"; two images of 5 and 3 objects."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = golden(f"pgd_maps_{name}")
        self.config = golden_config(f"pgd_maps_{name}", "head_cfg_json")

    def levels(self, name: str) -> list[Tensor]:
        return [self.data[f"{name}/l{level}"] for level in range(NUM_LEVELS)]

    @property
    def ground_truth(self) -> list[Instances]:
        return [
            instances(
                tuple(self.data[f"img{n}/img_shape"].tolist()),
                self.data[f"img{n}/gt_bboxes"].tolist(),
                self.data[f"img{n}/gt_labels"].tolist(),
            )
            for n in range(2)
        ]

    def teacher(self) -> DensePass:
        cls, reg = self.levels("tea_cls"), self.levels("tea_reg")
        flat = [x.permute(0, 2, 3, 1).flatten(1, 2) for x in reg]
        distribution = None
        if self.name == "gfl":
            distribution = [x.unflatten(2, (4, 17)) for x in flat]
            flat = [expected_distances(x) for x in distribution]
        coder = CODERS[self.name]
        return DensePass(
            features=cls,
            logits=[x.permute(0, 2, 3, 1).flatten(1, 2) for x in cls],
            deltas=flat,
            priors=[self.priors(x, stride) for x, stride in zip(cls, STRIDES)],
            strides=STRIDES,
            num_anchors=1,
            image_sizes=[truth.image_size for truth in self.ground_truth],
            decode=lambda deltas, priors: coder.apply_deltas(
                deltas.reshape(-1, 4), priors.reshape(-1, 4)
            ).view_as(deltas),
            distribution=distribution,
        )

    def priors(self, maps: Tensor, stride: int) -> Tensor:
        """Squares: of a stride around the middle of a cell for FCOS, of eight around its corner."""
        offset, size = (0.5, 1) if self.name == "fcos" else (0.0, 8)
        rows, columns = (torch.arange(cells) + offset for cells in maps.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centers = torch.stack((x, y), dim=-1).view(-1, 2) * stride
        return torch.cat((centers - size * stride / 2, centers + size * stride / 2), dim=1)

    def jitters(self, kind: str) -> list[Tensor]:
        """In pixels, in the order of the calls: image 0 cls, image 0 bbox, image 1 cls, ..."""
        jitters = [(self.data[f"rand/call{call}"] - 0.5) * 0.1 for call in range(4)]
        return [0 * jitter for jitter in jitters] if kind == "zero" else jitters
