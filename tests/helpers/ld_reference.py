"""The stored cases of LD's and BCKD's original implementations: outputs of GFL's head and ground
truth."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor

from dense_kd.detectors import ATSSAssigner, DistanceCoder
from dense_kd.detectors.boxes.distributions import expected_distances
from dense_kd.methods import Step
from dense_kd.outputs import DensePass, Targets
from helpers.builders import golden, golden_config, instances
from helpers.mmdet_models import detector

NUM_LEVELS = 5


class GFLReference:
    """``cls`` and ``reg`` are the student's maps, leaves of the graph: L x (2, C, Hl, Wl).

    Attributes:
        data: the stored arrays.
        config: of the head.
    """

    def __init__(self, name: str = "ld_gfl") -> None:
        self.data = golden(name)
        self.config = golden_config(name, "head_cfg_json")
        self.strides = self.config["anchor_generator"]["strides"]
        self.cls = [x.requires_grad_() for x in self.levels("stu_cls")]
        self.reg = [x.requires_grad_() for x in self.levels("stu_reg")]

    def levels(self, name: str) -> list[Tensor]:
        return [self.data[f"{name}/l{level}"] for level in range(NUM_LEVELS)]

    @property
    def priors(self) -> list[Tensor]:
        """Squares of 8 strides around (x * stride, y * stride)."""
        priors = []
        for stride, maps in zip(self.strides, self.cls):
            rows, columns = (torch.arange(size) * stride for size in maps.shape[2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers = torch.stack((x, y), dim=-1).view(-1, 2).float()
            priors.append(torch.cat((centers - 4 * stride, centers + 4 * stride), dim=1))
        return priors

    @property
    def ground_truth(self) -> list[Instances]:
        return [
            instances(
                tuple(self.data[f"img{image}/img_shape"].tolist()),
                self.data[f"img{image}/gt_bboxes"].tolist(),
                self.data[f"img{image}/gt_labels"].tolist(),
            )
            for image in range(2)
        ]

    def student(self) -> DensePass:
        return self._dense(self.cls, self.reg)

    def teacher(self) -> DensePass:
        return self._dense(self.levels("tea_cls"), self.levels("tea_reg"))

    def _dense(self, cls: list[Tensor], reg: list[Tensor]) -> DensePass:
        bins = self.config["reg_max"] + 1
        distribution = [x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (4, bins)) for x in reg]
        return DensePass(
            features=[],
            logits=[x.permute(0, 2, 3, 1).flatten(1, 2) for x in cls],
            deltas=[expected_distances(x) for x in distribution],
            priors=self.priors,
            strides=self.strides,
            num_anchors=1,
            image_sizes=[truth.image_size for truth in self.ground_truth],
            decode=DistanceCoder(activation="identity", prior_scale=8).apply_deltas,
            distribution=distribution,
        )

    def step(self) -> Step:
        labels = torch.cat(self.levels("labels"), dim=1)
        labels[torch.cat(self.levels("label_weights"), dim=1) == 0] = -1
        sizes = [truth.image_size for truth in self.ground_truth]
        classes = self.config["num_classes"]
        ours, boxes = ATSSAssigner().assign(self.priors, self.ground_truth, classes, sizes)
        assert torch.equal(ours, labels)
        targets = Targets(labels, boxes, classes, self.data["num_total_pos"].float())
        return make_step(targets, self.ground_truth)

    def detection_losses(self) -> dict[str, Tensor]:
        """The student's own, of our GFL."""
        model = detector("det_gfl")
        assert model.num_classes == self.config["num_classes"]
        return model.losses(self.student(), self.step().targets)


def make_step(targets: Targets, ground_truth: list[Instances]) -> Step:
    def nothing(*_):
        return None

    return Step(
        targets, ground_truth, iteration=0, resume=nothing, assign=nothing, images=torch.zeros(0)
    )
