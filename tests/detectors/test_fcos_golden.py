"""FCOS against values of mmdetection's, from the features of the pyramid on: see golden/README.md.

The plain variant of the paper, and the one with mmdetection's later tricks (distances in strides,
centreness from the box tower, centre sampling, GIoU).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from builders import GOLDEN, assert_close, golden
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from dense_kd.detectors import FCOS, DistanceCoder, FCOSHead
from dense_kd.outputs import DensePass, Targets

LEVELS = ("P3", "P4", "P5", "P6", "P7")
NUM_CLASSES = 5
COMMON = {
    "loss_normalizer_momentum": 0.0,
    "loss_normalizer_sync": True,
    "clip_before_nms": True,
    "assign_rule": "mmdet",
    "box_loss_weighting": "centerness",
    "score": "product",
    "test_score_thresh": 0.05,
}
MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "det_fcos": {
        **COMMON,
        "box2box_transform": DistanceCoder(activation="exp", normalize_by_size=False),
        "center_sampling_radius": None,
        "box_reg_loss_type": "iou",
        "test_nms_thresh": 0.5,
    },
    "det_fcos_tricks": {
        **COMMON,
        "box2box_transform": DistanceCoder(),
        "center_sampling_radius": 1.5,
        "box_reg_loss_type": "giou",
        "test_nms_thresh": 0.6,
    },
}
HEAD_OPTIONS: dict[str, dict[str, Any]] = {
    "det_fcos": {"conv_bias": False, "centerness_on": "cls"},
    "det_fcos_tricks": {"conv_bias": True, "centerness_on": "bbox"},
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
    """A variant of FCOS with mmdetection's weights, and what mmdetection computes with it."""

    name: str
    data: dict[str, Tensor]
    meta: dict[str, Any]
    model: FCOS

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


def our_key(key: str) -> str:
    """The name in our head of a parameter of mmdetection's."""
    tower, _, rest = key.partition(".")
    if tower in ("cls_convs", "reg_convs"):
        index, module, parameter = rest.split(".")
        subnet = {"cls_convs": "cls_subnet", "reg_convs": "bbox_subnet"}[tower]
        return f"{subnet}.{3 * int(index) + ('conv', 'gn').index(module)}.{parameter}"
    renamed = {"conv_cls": "cls_score", "conv_reg": "bbox_pred", "conv_centerness": "ctrness"}
    return f"{renamed.get(tower, tower)}.{rest}"


@pytest.fixture(params=list(MODEL_OPTIONS))
def reference(request) -> Reference:
    data = golden(f"{request.param}_data")
    backbone = StoredFeatures({f"p{level[1]}": data[f"fpn/{level}"].clone() for level in LEVELS})
    head = FCOSHead(
        input_shape=[ShapeSpec(channels=32)] * 5,
        num_classes=NUM_CLASSES,
        conv_dims=[32] * 4,
        norm=lambda channels: nn.GroupNorm(8, channels),
        level_scales=True,
        **HEAD_OPTIONS[request.param],
    )
    checkpoint = torch.load(GOLDEN / f"{request.param}.pth", weights_only=True)
    prefix = "bbox_head."
    weights = {
        our_key(key[len(prefix) :]): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    head.load_state_dict(weights, strict=True)
    model = FCOS(
        backbone=backbone,
        head=head,
        num_classes=NUM_CLASSES,
        pixel_mean=[0.0, 0.0, 0.0],
        pixel_std=[1.0, 1.0, 1.0],
        **MODEL_OPTIONS[request.param],
    )
    return Reference(request.param, data, json.loads(checkpoint["meta"]["model_cfg"]), model)


def test_options_are_those_of_the_reference(reference: Reference):
    test, head = reference.meta["test_cfg"], reference.meta["bbox_head"]
    model = reference.model
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.strides == head["strides"]
    assert model.box2box_transform.normalize_by_size == head.get("norm_on_bbox", False)
    assert (model.assigner.center_sampling_radius is not None) == head.get("center_sampling", False)
    assert head["loss_bbox"]["type"].lower() == f"{model.box_reg_loss_type}loss"
    assert head["loss_bbox"]["loss_weight"] == 1.0


def test_head_outputs_equal_the_reference(reference: Reference):
    outputs, _ = reference.model.head.run(list(reference.features.values()))
    exp = reference.model.box2box_transform.activation == "exp"
    for level in range(5):
        data = {kind: reference.data[f"head/{kind}/l{level}"] for kind in ("cls", "reg", "ctr")}
        deltas = outputs.deltas[level]
        assert_close(outputs.logits[level], data["cls"], 1e-4, f"class, level {level}")
        assert_close(outputs.quality[level], data["ctr"], 1e-4, f"centreness, level {level}")
        assert_close(deltas.exp() if exp else deltas.relu(), data["reg"], 1e-4, f"box, {level}")


def test_taps_equal_the_features_of_the_reference_towers(reference: Reference):
    depths = range(1, 5)
    taps = reference.run([(branch, i) for branch in ("cls", "bbox") for i in depths]).taps
    for branch, tower in (("cls", "cls_convs"), ("bbox", "reg_convs")):
        for depth in depths:
            expected = reference.data[f"tower/{tower}.{depth - 1}/P4"]
            assert_close(taps[branch, depth][1], expected, 1e-4, f"{tower} {depth}")


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_resuming_from_the_reference_features_gives_the_reference_outputs(
    reference: Reference, depth: int
):
    taps = reference.run([("cls", depth), ("bbox", depth)]).taps
    resumed = {}
    for branch, tower in (("cls", "cls_convs"), ("bbox", "reg_convs")):
        resumed[branch] = list(taps[branch, depth])
        resumed[branch][1] = reference.data[f"tower/{tower}.{depth - 1}/P4"]
    outputs = reference.model.head.resume(resumed, depth)
    assert_close(outputs.logits[1], reference.data["head/cls/l1"], 1e-4, "class")
    assert_close(outputs.quality[1], reference.data["head/ctr/l1"], 1e-4, "centreness")
    exp = reference.model.box2box_transform.activation == "exp"
    distances = outputs.deltas[1].exp() if exp else outputs.deltas[1].relu()
    assert_close(distances, reference.data["head/reg/l1"], 1e-4, "box")


def test_points_equal_the_reference(reference: Reference):
    for level, priors in enumerate(reference.run().priors):
        centers = (priors[:, :2] + priors[:, 2:]) / 2
        assert torch.equal(centers, reference.data[f"points/l{level}"])


def test_boxes_are_the_distances_of_inference_around_the_points(reference: Reference):
    dense = reference.run()
    for level, boxes in enumerate(dense.boxes):
        distances = reference.data[f"head_eval/reg/l{level}"].flatten(2).transpose(1, 2)
        points = reference.data[f"points/l{level}"]
        expected = torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=2)
        assert_close(boxes, expected, 1e-4, f"level {level}")


@pytest.mark.parametrize("case", ["a", "b"])
def test_assignment_equals_the_reference(reference: Reference, case: str):
    dense = reference.run()
    targets = reference.targets(dense, case)
    foreground = targets.foreground
    assert foreground.any()
    assert torch.equal(targets.labels, reference.per_level(f"{case}/labels"))

    index = [reference.data[f"{case}/assigned_gt/l{level}"] for level in range(5)]
    for image, matched in enumerate(torch.cat(index, dim=1)):
        assert torch.equal(matched >= 0, foreground[image])
        boxes = reference.data[f"{case}/img{image}/gt_bboxes"][matched[matched >= 0]]
        assert torch.equal(targets.boxes[image, foreground[image]], boxes)

    priors = torch.cat(dense.priors)
    distances = reference.model.box2box_transform.get_deltas(priors, targets.boxes)
    expected = reference.per_level(f"{case}/bbox_targets", 4)
    assert_close(distances[foreground], expected[foreground], 1e-6)


@pytest.mark.parametrize("case", ["a", "b"])
def test_losses_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    losses = reference.model.losses(dense, reference.targets(dense, case))
    names = {"cls": "loss_cls", "loc": "loss_bbox", "ctr": "loss_centerness"}
    assert len(losses) == 3
    for ours, theirs in names.items():
        loss, expected = losses[f"loss_fcos_{ours}"], reference.data[f"{case}/loss/{theirs}"]
        assert expected > 0
        assert_close(loss, expected, 1e-5, theirs)
    assert_close(sum(losses.values()), reference.data[f"{case}/loss_total"], 1e-5)


@pytest.mark.parametrize("case", ["a", "b"])
def test_gradients_equal_the_reference(reference: Reference, case: str):
    for feature in reference.features.values():
        feature.requires_grad_()
    dense = reference.run()
    sum(reference.model.losses(dense, reference.targets(dense, case)).values()).backward()
    gradients = {f"fpn_P{name[1]}": f.grad for name, f in reference.features.items()}
    gradients |= {name: p.grad for name, p in reference.model.head.named_parameters()}
    prefix = f"{case}/grad/"
    keys = [key[len(prefix) :] for key in reference.data if key.startswith(prefix)]
    assert "fpn_P5" in keys and len(keys) == (7 if case == "a" else 1)
    for key in keys:
        ours = key if key.startswith("fpn") else our_key(key)
        assert_close(gradients[ours], reference.data[prefix + key], 1e-4, key)


@torch.no_grad()
def test_detections_equal_the_reference(reference: Reference):
    model = reference.model.eval()
    for image, detections in enumerate(model.inference(reference.run())):
        expected = {k: reference.data[f"pred/img{image}/{k}"] for k in ("bboxes", "scores")}
        assert len(detections) == len(expected["scores"]) == 100
        assert_close(detections.scores, expected["scores"], 1e-4, f"scores, image {image}")
        difference = (detections.pred_boxes.tensor - expected["bboxes"]).abs().max()
        assert difference < 0.02, f"boxes of image {image} are off by {difference} pixels"
        assert torch.equal(detections.pred_classes, reference.data[f"pred/img{image}/labels"])


@torch.no_grad()
def test_clipping_after_nms_as_detectron2_does_changes_the_detections(reference: Reference):
    model = reference.model.eval()
    before = model.inference(reference.run())
    model.clip_before_nms = False
    after = model.inference(reference.run())
    for a, b in zip(before, after):
        a.pred_boxes.clip(a.image_size), b.pred_boxes.clip(b.image_size)
        assert not torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
