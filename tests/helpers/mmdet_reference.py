"""A detector of ours with mmdetection's weights, on the features of mmdetection's pyramid."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from dense_kd.detectors import DenseDetector, HeadOutputs, TowerHead
from dense_kd.outputs import DensePass, Targets
from helpers.builders import GOLDEN, assert_close, golden, golden_config, group_norm_8
from helpers.gradients import Nudge, assert_gradients_close

LEVELS = ("P3", "P4", "P5", "P6", "P7")


def head_arguments(name: str) -> dict[str, Any]:
    """Of the head in ``golden/<name>``."""
    head = golden_config(name, "model_cfg")["bbox_head"]
    return {
        "input_shape": [ShapeSpec(channels=head["in_channels"])] * len(LEVELS),
        "num_classes": head["num_classes"],
        "conv_dims": [head["feat_channels"]] * head["stacked_convs"],
        "norm": group_norm_8,
    }


class StoredFeatures(Backbone):
    """Gives the features it was made of, whatever the image."""

    def __init__(self, features: dict[str, Tensor]):
        super().__init__()
        self.features = features

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.features

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=feature.shape[1], stride=8 * 2**level)
            for level, (name, feature) in enumerate(self.features.items())
        }


@dataclass
class Reference:
    """A detector with mmdetection's weights, and what mmdetection computes with them."""

    name: str
    data: dict[str, Tensor]
    meta: dict[str, Any]
    model: DenseDetector

    @property
    def features(self) -> dict[str, Tensor]:
        return self.model.backbone.features

    def run(self, taps: tuple = ()) -> DensePass:
        return self.model.run(self.images(), taps)

    def images(self) -> ImageList:
        sizes = [tuple(self.data[f"img{i}/img_shape"].tolist()) for i in range(2)]
        return ImageList(torch.zeros(2, 3, *self.data["batch_input_shape"].tolist()), sizes)

    def ground_truth(self, case: str) -> list[Instances]:
        return [
            Instances(
                size,
                gt_boxes=Boxes(self.data[f"{case}/img{i}/gt_bboxes"]),
                gt_classes=self.data[f"{case}/img{i}/gt_labels"],
            )
            for i, size in enumerate(self.images().image_sizes)
        ]

    def targets(self, dense: DensePass, case: str) -> Targets:
        return self.model.targets(dense, self.ground_truth(case))

    def per_level(self, key: str, *shape: int) -> Tensor:
        """The arrays ``key/l0``..``key/l4``, (N*Hl*Wl, ...), as (N, R, ...)."""
        levels = [self.data[f"{key}/l{level}"].reshape(2, -1, *shape) for level in range(5)]
        return torch.cat(levels, dim=1)


# Ten times what was measured: 1.8e-6, 2.9e-7, 8.3e-7, 5.9e-7 and 6.1e-5 pixels.
FEATURE_NOISE, LOSS_NOISE, GRADIENT_NOISE, SCORE_NOISE, BOX_NOISE = 2e-5, 3e-6, 9e-6, 6e-6, 7e-4


def our_key(key: str) -> str:
    """The name in our head of a parameter of mmdetection's."""
    module, _, rest = key.partition(".")
    if module in ("cls_convs", "reg_convs"):
        index, layer, parameter = rest.split(".", 2)
        subnet = {"cls_convs": "cls_subnet", "reg_convs": "bbox_subnet"}[module]
        return f"{subnet}.{3 * int(index) + ('conv', 'gn').index(layer)}.{parameter}"
    predictions = {
        "cls": "cls_score",
        "reg": "bbox_pred",
        "centerness": "ctrness",
        "iou": "iou_pred",
    }
    return f"{predictions.get(module.partition('_')[2], module)}.{rest}"


def make_reference(
    name: str, head: TowerHead, build: Callable[..., DenseDetector], **options: Any
) -> Reference:
    """Load ``golden/<name>`` into ``head`` and build its detector with ``options``."""
    data = golden(f"{name}_data")
    backbone = StoredFeatures({f"p{level[1]}": data[f"fpn/{level}"].clone() for level in LEVELS})
    checkpoint = torch.load(GOLDEN / f"{name}.pth", weights_only=True)
    prefix = "bbox_head."
    weights = {
        our_key(key[len(prefix) :]): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix) and key != "bbox_head.integral.project"  # 0..16, not learnt
    }
    head.load_state_dict(weights, strict=True)
    model = build(
        backbone=backbone,
        head=head,
        num_classes=head.num_classes,
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[1.0, 1.0, 1.0],
        **options,
    )
    return Reference(name, data, golden_config(name, "model_cfg"), model)


def assert_equal_taps(reference: Reference) -> None:
    """The features after each block of both towers, on P4."""
    depths = range(1, 5)
    taps = reference.run([(branch, i) for branch in ("cls", "bbox") for i in depths]).taps
    for branch, tower in (("cls", "cls_convs"), ("bbox", "reg_convs")):
        for depth in depths:
            expected = reference.data[f"tower/{tower}.{depth - 1}/P4"]
            assert_close(taps[branch, depth][1], expected, FEATURE_NOISE, f"{tower} {depth}")
    before = reference.run([("cls_pre_relu", 3), ("bbox_pre_relu", 3)]).taps
    for branch, tower in (("cls", "cls_convs"), ("bbox", "reg_convs")):
        expected = reference.data[f"tower_preact/{tower}.2/P4"]
        assert_close(
            before[f"{branch}_pre_relu", 3][1], expected, FEATURE_NOISE, f"{tower} before ReLU"
        )


def resume_from_reference(reference: Reference, depth: int) -> HeadOutputs:
    """The head resumed from its own taps, but on P4 from mmdetection's."""
    taps = reference.run([("cls", depth), ("bbox", depth)]).taps
    resumed = {}
    for branch, tower in (("cls", "cls_convs"), ("bbox", "reg_convs")):
        resumed[branch] = list(taps[branch, depth])
        resumed[branch][1] = reference.data[f"tower/{tower}.{depth - 1}/P4"]
    return reference.model.head.resume(resumed, depth)


def assert_equal_gradients(reference: Reference, case: str, count: int) -> None:
    """The gradients of the summed losses, of which mmdetection's are stored for ``count``."""
    prefix = f"{case}/grad/"
    stored = {k[len(prefix) :]: v for k, v in reference.data.items() if k.startswith(prefix)}
    assert "fpn_P5" in stored and len(stored) == count
    expected = {k if k.startswith("fpn") else our_key(k): v for k, v in stored.items()}
    assert_gradients_close(
        functools.partial(feature_gradients, reference, case), expected, GRADIENT_NOISE
    )


def feature_gradients(reference: Reference, case: str, nudge: Nudge) -> dict[str, Tensor]:
    """Those of the summed losses: of the pyramid (``fpn_P3``...), and of the head's parameters."""
    stored = reference.features
    inputs = {name: nudge(x).clone().requires_grad_() for name, x in stored.items()}
    reference.model.backbone.features = inputs
    dense = reference.run()
    total = sum(reference.model.losses(dense, reference.targets(dense, case)).values())
    reference.model.backbone.features = stored
    parameters = dict(reference.model.head.named_parameters())
    names = [*(f"fpn_P{name[1]}" for name in inputs), *parameters]
    tensors = [*inputs.values(), *parameters.values()]
    found = torch.autograd.grad(total, tensors, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found) if gradient is not None}


@torch.no_grad()
def assert_equal_detections(reference: Reference, counts: tuple[int, int]) -> None:
    """The final detections; ``counts`` are those of the two images."""
    detections = reference.model.eval().inference(reference.run())
    for image, (found, count) in enumerate(zip(detections, counts)):
        expected = {k: reference.data[f"pred/img{image}/{k}"] for k in ("bboxes", "scores")}
        assert len(found) == len(expected["scores"]) == count
        assert_close(found.scores, expected["scores"], SCORE_NOISE, f"scores, image {image}")
        difference = (found.pred_boxes.tensor - expected["bboxes"]).abs().max()
        assert difference < BOX_NOISE, f"boxes of image {image} are off by {difference} pixels"
        assert torch.equal(found.pred_classes, reference.data[f"pred/img{image}/labels"])
