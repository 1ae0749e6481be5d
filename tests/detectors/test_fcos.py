"""The targets, losses, scores and options of our FCOS, against values worked out by hand."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd.detectors import FCOS, DistanceCoder, FCOSHead
from dense_kd.outputs import DensePass, Targets
from dense_kd.yacs_config import add_dense_kd_config
from helpers.builders import NUM_CLASSES, assert_close, batch, instances, tiny_fcos


def pass_and_targets(model: FCOS, inputs: list[dict]) -> tuple[DensePass, Targets]:
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


@pytest.mark.parametrize("normalize", [True, False])
def test_centerness_is_the_root_of_the_ratios_of_opposite_distances(normalize: bool):
    coder = DistanceCoder(normalize_by_size=normalize)
    model = tiny_fcos(box2box_transform=coder, center_sampling_radius=None)
    inputs = batch("one empty")
    inputs[0]["instances"] = instances((64, 96), [[8, 8, 24, 24], [40, 0, 72, 56]], [1, 2])
    _, targets = pass_and_targets(model, inputs)
    width = 12  # the batch is 96 pixels wide
    # (12, 12) in the first: distances 4, 4, 12, 12.
    assert targets.quality[0, 1 * width + 1].item() == pytest.approx(1 / 3)
    # (44, 28) in the second: 4 and 28 pixels horizontally, 28 and 28 vertically.
    assert targets.labels[0, 3 * width + 5] == 2
    assert targets.quality[0, 3 * width + 5].item() == pytest.approx((1 / 7) ** 0.5)
    assert (targets.quality[~targets.foreground] == 0).all()
    assert not targets.quality.requires_grad


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Lin et al., equation 5, summed; labels (...) with K as background."""
    num_classes = logits.shape[-1]
    is_class = torch.arange(num_classes) == labels[..., None]
    probability = logits.sigmoid()
    p = torch.where(is_class, probability, 1 - probability)
    weight = torch.where(is_class, torch.tensor(alpha), torch.tensor(1 - alpha))
    return (-weight * (1 - p) ** gamma * p.log()).sum()


@pytest.mark.parametrize("weighting", ["uniform", "centerness"])
@pytest.mark.parametrize("kind", ["giou", "iou"])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_losses_are_the_formulas_of_their_options(kind: str, weighting: str, momentum: float):
    model = tiny_fcos(
        box_reg_loss_type=kind,
        box_loss_weighting=weighting,
        loss_normalizer_momentum=momentum,
        focal_loss_alpha=0.4,
        focal_loss_gamma=1.5,
    )
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)

    positives = targets.foreground.sum().item()
    assert positives > 10
    normalizer = momentum * 300 + (1 - momentum) * positives
    expected_cls = focal_loss(torch.cat(dense.logits, 1), targets.labels, 0.4, 1.5) / normalizer
    boxes = torch.cat(dense.boxes, dim=1)[targets.foreground]
    overlap = generalized_box_iou if kind == "giou" else box_iou
    overlap = overlap(boxes, targets.boxes[targets.foreground]).diagonal()
    box_losses = 1 - overlap if kind == "giou" else -overlap.log()
    centerness = targets.quality[targets.foreground]
    if weighting == "uniform":
        expected_loc = box_losses.sum() / normalizer
    else:
        expected_loc = (box_losses * centerness).sum() / centerness.sum()
    predicted = torch.cat(dense.quality, dim=1)[targets.foreground].sigmoid()
    expected_ctr = F.binary_cross_entropy(predicted, centerness, reduction="sum") / normalizer

    assert sorted(losses) == ["loss_fcos_cls", "loss_fcos_ctr", "loss_fcos_loc"]
    assert_close(losses["loss_fcos_cls"], expected_cls, what="class loss")
    assert_close(losses["loss_fcos_loc"], expected_loc, what="box loss")
    assert_close(losses["loss_fcos_ctr"], expected_ctr, what="centreness loss")


@pytest.mark.parametrize("weighting", ["uniform", "centerness"])
@pytest.mark.parametrize("kind", ["giou", "iou"])
def test_losses_without_positives_keep_the_graph(kind: str, weighting: str):
    model = tiny_fcos(box_reg_loss_type=kind, box_loss_weighting=weighting)
    losses = model(batch("all empty"))
    assert losses["loss_fcos_loc"] == 0 == losses["loss_fcos_ctr"]
    assert losses["loss_fcos_cls"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.head.bbox_pred.weight.grad.abs().max() == 0


def test_centerness_weights_are_divided_by_their_sum_also_below_one():
    """The one point of the only box has a centreness of 1 / 7."""
    model = tiny_fcos(box_loss_weighting="centerness")
    inputs = batch("all empty")
    inputs[0]["instances"] = instances((64, 96), [[11, 11, 19, 19]], [1])
    dense, targets = pass_and_targets(model, inputs)
    assert targets.quality.sum().item() == pytest.approx(1 / 7)
    boxes = torch.cat(dense.boxes, dim=1)[targets.foreground]
    expected = 1 - generalized_box_iou(boxes, targets.boxes[targets.foreground]).sum()
    assert_close(model.losses(dense, targets)["loss_fcos_loc"], expected)


def test_a_box_that_misses_its_target_has_the_largest_iou_loss():
    model = tiny_fcos(box_reg_loss_type="iou")
    apart = model._box_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[5.0, 5, 9, 9]]))
    assert apart.item() == pytest.approx(13.8155, rel=1e-4)  # -log(1e-6)


def test_loss_normalizer_starts_at_300_and_is_not_in_the_state_dict():
    model = tiny_fcos()
    assert model.loss_normalizer == 300 and model.loss_normalizer.dtype == torch.float32
    assert "loss_normalizer" not in model.state_dict()
    model.eval()
    assert pass_and_targets(model, batch("usual"))[1].normalizer == 300 == model.loss_normalizer
    model.train()
    _, targets = pass_and_targets(model, batch("all empty"))
    assert targets.normalizer.item() == pytest.approx(270.1)


def pass_with_two_scores(model: FCOS) -> DensePass:
    """A pass whose only classes above e^-20 are 0.5, with centreness 0.018 and 0.88."""
    dense = model.run(model.preprocess_image(batch("usual")[:1]))
    for maps in (dense.logits, dense.quality):
        for tensor in maps:
            tensor.data.fill_(-20.0)
    for index, centerness in ((0, -4.0), (30, 2.0)):
        dense.logits[0].data[0, index, 1] = 0.0
        dense.quality[0].data[0, index] = centerness
    return dense


def sigmoid(value: float) -> float:
    return torch.tensor(value).sigmoid().item()


def test_sqrt_scores_are_thresholded_after_centerness():
    model = tiny_fcos(score="sqrt", test_score_thresh=0.2)
    detections = model.inference(pass_with_two_scores(model))[0]
    assert detections.scores.tolist() == pytest.approx([(0.5 * sigmoid(2.0)) ** 0.5])
    assert detections.pred_classes.tolist() == [1]


def test_product_scores_are_thresholded_before_centerness():
    model = tiny_fcos(score="product", test_score_thresh=0.2)
    detections = model.inference(pass_with_two_scores(model))[0]
    assert detections.scores.tolist() == pytest.approx([0.5 * sigmoid(2.0), 0.5 * sigmoid(-4.0)])


def test_product_scores_select_the_top_candidates_before_centerness():
    model = tiny_fcos(score="product", test_score_thresh=0.2, test_topk_candidates=1)
    dense = pass_with_two_scores(model)
    dense.logits[0].data[0, 0, 1] = 1.0  # the better class, with the worse centreness
    detections = model.inference(dense)[0]
    assert detections.scores.tolist() == pytest.approx([sigmoid(1.0) * sigmoid(-4.0)])


@pytest.mark.parametrize(
    ("option", "value"),
    [("box_reg_loss_type", "l1"), ("box_loss_weighting", "iou"), ("score", "sum")],
)
def test_an_unknown_option_is_refused(option: str, value: str):
    with pytest.raises(ValueError, match=f"{option}='{value}': expected one of"):
        tiny_fcos(**{option: value})


def test_centerness_on_an_unknown_tower_is_refused():
    with pytest.raises(ValueError, match="centerness_on='box': expected 'cls' or 'bbox'"):
        tiny_fcos(head={"centerness_on": "box"})


@pytest.mark.parametrize("tower", ["cls", "bbox"])
def test_centerness_is_predicted_from_the_tower_that_is_asked_for(tower: str):
    head = tiny_fcos(head={"centerness_on": tower}).head
    features = [torch.randn(1, 16, 4, 4, requires_grad=True) for _ in range(3)]
    outputs, taps = head.run(features, [("cls", 2), ("bbox", 2)])
    expected = head.ctrness(taps[tower, 2][0])
    assert torch.equal(outputs.quality[0], expected)
    outputs.quality[0].sum().backward()
    for name, module in (("cls", head.cls_subnet), ("bbox", head.bbox_subnet)):
        assert (module[0].weight.grad is not None) == (name == tower)


def test_level_scales_multiply_the_box_predictions_of_their_level():
    head = tiny_fcos(head={"level_scales": True}).head
    features = [torch.randn(1, 16, 4, 4) for _ in range(3)]
    outputs, taps = head.run(features, [("bbox", 2)])
    for level, scale in enumerate(head.scales):
        assert scale.scale != 1  # the builder makes them random
        expected = head.bbox_pred(taps["bbox", 2][level]) * scale.scale
        assert_close(outputs.deltas[level], expected)
    assert tiny_fcos().head.scales is None


FCOS_ATTRIBUTES = {
    "CENTER_SAMPLING_RADIUS": ("assigner.center_sampling_radius", 2.5),
    "FOCAL_LOSS_ALPHA": ("focal_loss_alpha", 0.3),
    "FOCAL_LOSS_GAMMA": ("focal_loss_gamma", 1.5),
    "SCORE_THRESH_TEST": ("test_score_thresh", 0.11),
    "TOPK_CANDIDATES_TEST": ("test_topk_candidates", 123),
    "NMS_THRESH_TEST": ("test_nms_thresh", 0.45),
}
"""{key of MODEL.FCOS: (attribute of the model, a value that is no default)}"""


def test_a_yacs_config_builds_the_model_of_its_keys():
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.FCOS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6"]
    cfg.MODEL.FCOS.NUM_CONVS = 2
    cfg.MODEL.FCOS.NORM = ""
    cfg.MODEL.FCOS.PRIOR_PROB = 0.2
    cfg.MODEL.FCOS.REG_MAX = 8
    for key, (_, value) in FCOS_ATTRIBUTES.items():
        cfg.MODEL.FCOS[key] = value
    cfg.TEST.DETECTIONS_PER_IMAGE = 77
    read_elsewhere = {"NUM_CLASSES", "IN_FEATURES", "NUM_CONVS", "NORM", "PRIOR_PROB", "REG_MAX"}
    assert {*FCOS_ATTRIBUTES, *read_elsewhere} == set(cfg.MODEL.FCOS)
    model = FCOS(**FCOS.from_config(cfg))
    assert type(model.head) is FCOSHead and model.head.depth == 2
    assert model.strides == [8, 16, 32, 64]
    assert model.num_classes == NUM_CLASSES == model.head.num_classes
    for attribute, value in FCOS_ATTRIBUTES.values():
        assert operator.attrgetter(attribute)(model) == value, attribute
    assert model.max_detections_per_image == 77
    assert not any(isinstance(layer, nn.GroupNorm) for layer in model.head.cls_subnet)
    assert model.head.cls_score.bias.sigmoid().tolist() == pytest.approx([0.2] * NUM_CLASSES)
    assert model.head.reg_max == 8
    assert all(loss.isfinite() for loss in model(batch("usual")).values())
