"""Student and teacher of the golden CrossKD cases, from the features of the pyramids on."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from dense_kd import CrossKD, Teacher
from dense_kd.checkpoint.layouts.mmdet import convert_mmdet
from dense_kd.detectors import DenseDetector
from dense_kd.methods import Step
from dense_kd.outputs import DensePass
from helpers.builders import GOLDEN, golden
from helpers.gradients import Nudge
from helpers.mmdet_models import detector
from helpers.mmdet_reference import StoredFeatures

DETECTORS = {
    "gfl": "det_gfl",
    "gfl_emptyimg": "det_gfl",
    "atss": "det_atss",
    "fcos": "det_fcos",
    "fcos_tricks": "det_fcos_tricks",
    "retinanet": "det_retinanet",
}
LOC_LOSSES = {
    "KnowledgeDistillationKLDivLoss": "kl",
    "GIoULoss": "giou",
    "IoULoss": "iou",
}


class Reference:
    """One case: both detectors, the method as it was configured, and what it computed.

    ``nudge`` is applied to the features of both pyramids.

    Attributes:
        data: the stored arrays.
        features: the student's pyramid, which requires gradient.
        student, teacher: the passes, with the taps of ``method``.
        step: of the student's targets.
        method: with the options of the stored config.
    """

    def __init__(self, tag: str, nudge: Nudge = lambda x: x, **options: Any):
        self.tag = tag
        self.data = golden(f"crosskd_{tag}")
        heads = torch.load(GOLDEN / f"crosskd_{tag}_heads.pth", weights_only=True)
        meta = heads["meta"]
        self.config = json.loads(meta["kd_cfg"])
        self.features = [
            nudge(self.data[f"stu_fpn/l{i}"]).clone().requires_grad_() for i in range(5)
        ]
        teacher_features = [nudge(self.data[f"tea_fpn/l{i}"]) for i in range(5)]
        self.student_model = self._detector(heads["student"], self.features)
        self.teacher_model = self._detector(heads["teacher"], teacher_features)
        self.method = CrossKD(**{**self.options(), **options})
        self.method.check(self.student_model, self.teacher_model)
        self.method.prepare(self.student_model, self.teacher_model)
        teacher = Teacher(self.teacher_model, None)

        self.student = self.student_model.run(self.images(), self.method.needs.taps)
        self.teacher = teacher.run([], self.images(), self.student_model, self.method.needs.taps)
        truth = self.ground_truth()
        targets = self.student_model.targets(self.student, truth)
        assign = functools.partial(
            teacher.assign, self.teacher, truth, self.student_model.num_classes
        )
        self.step = Step(targets, truth, 0, teacher.resume, assign, torch.zeros(0))

    def _detector(self, head: dict[str, Tensor], features: list[Tensor]) -> DenseDetector:
        model = detector(DETECTORS[self.tag])
        model.backbone = StoredFeatures({f"p{3 + i}": f for i, f in enumerate(features)})
        weights = convert_mmdet({f"bbox_head.{key}": value for key, value in head.items()})
        prefix = "head."
        assert all(key.startswith(prefix) for key in weights)
        model.head.load_state_dict({k[len(prefix) :]: v for k, v in weights.items()}, strict=True)
        return model

    def options(self) -> dict[str, Any]:
        """The stored config in our terms."""
        quality = self.config.get("loss_center_kd")
        assert self.config["loss_cls_kd"]["beta"] == 1
        return {
            "depth": self.config["reused_teacher_head_idx"],
            "cls_weight": self.config["loss_cls_kd"]["loss_weight"],
            "loc_weight": self.config["loss_reg_kd"]["loss_weight"],
            "quality_weight": quality["loss_weight"] if quality else 0.0,
            "loc_loss": LOC_LOSSES[self.config["loss_reg_kd"]["type"]],
            "normalize": "quality" if "fcos" in self.tag else "positives",
        }

    def images(self) -> ImageList:
        sizes = [tuple(self.data[f"img{i}/img_shape"].tolist()) for i in range(2)]
        return ImageList(torch.zeros(2, 3, *self.data["batch_input_shape"].tolist()), sizes)

    def ground_truth(self) -> list[Instances]:
        return [
            Instances(
                size,
                gt_boxes=Boxes(self.data[f"img{i}/gt_bboxes"]),
                gt_classes=self.data[f"img{i}/gt_labels"],
            )
            for i, size in enumerate(self.images().image_sizes)
        ]

    def losses(self) -> dict[str, Tensor]:
        return self.method(self.student, self.teacher, self.step)

    def cross(self) -> DensePass:
        return self.method.cross_predictions(self.student, self.teacher, self.step.resume)

    def expected(self, name: str) -> Tensor:
        """The stored loss, summed over levels."""
        return self.data[f"loss/{name}"].sum()

    def stored_map(self, key: str, dim: int) -> Tensor:
        """A stored (N, A*dim, Hl, Wl) as (N, Hl*Wl*A, dim), with detectron2's order of anchors."""
        x = self.data[key].movedim(1, -1).flatten(1, 2)  # (N, Hl*Wl, A*dim)
        if self.tag == "retinanet":  # three ratios of three scales each
            return x.unflatten(2, (3, 3, dim)).transpose(2, 3).flatten(1, 3)
        return x
