"""Every detector on ground truth as real data sets have it: none, too much, doubled, degenerate,
wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils import logger
from torch import Tensor

from dense_kd.detectors import DenseDetector
from dense_kd.outputs import Targets
from helpers.builders import (
    NUM_CLASSES,
    TinyBlock,
    batch,
    instances,
    tiny_fcos,
)
from helpers.detector_variants import VARIANTS, Variant

EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))

Coordinates = list[list[float]]


def tiny(variant: Variant, **options: Any) -> DenseDetector:
    """With as few convolutions as it takes: ground truth is compared with what they predict."""
    return variant.model(block=TinyBlock, depth=1, **options)


def crowd(size: float, count: int = 500) -> Coordinates:
    """Boxes of 4 pixels to half of ``size``, which may reach beyond it."""
    random = torch.rand(count, 4, generator=torch.Generator().manual_seed(0))
    low = random[:, :2] * size
    return torch.cat((low, low + 4 + random[:, 2:] * size / 2), dim=1).tolist()


SOME_BOX = [10.0, 10.0, 50.0, 40.0]
LARGE_BOX = [-100.0, -50.0, 200.0, 120.0]
WITHOUT_AREA: dict[str, Coordinates] = {
    "a line": [[10.0, 10.0, 10.0, 30.0]],
    "a point": [[20.0, 20.0, 20.0, 20.0]],
    "x2 < x1": [[30.0, 30.0, 20.0, 40.0]],
    "y2 < y1": [[20.0, 40.0, 30.0, 30.0]],
    "both, the product of whose sides is positive": [[30.0, 40.0, 20.0, 30.0]],
}
BOXES: dict[str, Coordinates] = {
    "500 boxes": crowd(70),
    "larger than the image": [LARGE_BOX],
    "larger than the image and off its centre": [[-100.0, -50.0, 400.0, 300.0]],
    "thinner than a pixel": [[10.0, 10.0, 10.001, 60.0]],
    "as small as float32 has it": [[10.0, 10.0, 10.000001, 10.000001]],
    "outside of the image": [[1000.0, 1000.0, 1100.0, 1100.0]],
    "two identical": [SOME_BOX] * 2,
}


def inputs_with(boxes: Coordinates, classes: list[int] | None = None) -> list[dict[str, Any]]:
    """Two images: ``boxes``, of class 0 by default, in the first and usual ones in the second."""
    inputs = batch("usual")
    inputs[0]["instances"] = instances((64, 96), boxes, classes or [0] * len(boxes))
    return inputs


def assert_trains_and_detects(
    model: DenseDetector, inputs: list[dict[str, Any]]
) -> dict[str, Tensor]:
    """Losses and gradients are finite, every loss keeps the graph, every parameter has a gradient
    (or DistributedDataParallel waits for it), and the model detects afterwards."""
    losses = model(inputs)
    for name, loss in losses.items():
        assert loss.isfinite() and loss >= 0, f"{name} is {loss.item()}"
        assert loss.requires_grad, name
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        for found in model(inputs):
            assert found["instances"].pred_boxes.tensor.isfinite().all()
            assert len(found["instances"]) <= model.max_detections_per_image
    model.train()
    return losses


def targets_of(model: DenseDetector, inputs: list[dict[str, Any]]) -> Targets:
    dense = model.run(model.preprocess_image(inputs))
    return model.targets(dense, model.ground_truth(inputs))


@EVERY_VARIANT
@pytest.mark.parametrize("case", ["one empty", "all empty"])
def test_images_without_boxes_are_background(variant: Variant, case: str):
    losses = assert_trains_and_detects(tiny(variant), batch(case))
    if case == "all empty":  # all that is left to learn is that nothing is there
        assert sum(bool(loss > 0) for loss in losses.values()) == 1


@EVERY_VARIANT
@pytest.mark.parametrize("boxes", BOXES.values(), ids=list(BOXES))
def test_difficult_boxes_train(variant: Variant, boxes: Coordinates):
    assert_trains_and_detects(tiny(variant), inputs_with(boxes))


@EVERY_VARIANT
@pytest.mark.parametrize("boxes", WITHOUT_AREA.values(), ids=list(WITHOUT_AREA))
def test_boxes_without_area_change_no_loss(variant: Variant, boxes: Coordinates):
    expected = tiny(variant)(inputs_with([SOME_BOX], [1]))
    assert tiny(variant)(inputs_with([*boxes, SOME_BOX, *boxes], [3, 1, 0])) == expected


@EVERY_VARIANT
def test_an_image_of_boxes_without_area_is_one_without_boxes(variant: Variant):
    expected = tiny(variant)(inputs_with([]))
    boxes = [box for boxes in WITHOUT_AREA.values() for box in boxes]
    assert assert_trains_and_detects(tiny(variant), inputs_with(boxes)) == expected


@EVERY_VARIANT
def test_a_box_larger_than_the_image_has_positives(variant: Variant):
    targets = targets_of(tiny(variant), inputs_with([LARGE_BOX], [2]))
    foreground = targets.foreground[0]
    assert foreground.any()
    assert (targets.labels[0, foreground] == 2).all()
    assert (targets.boxes[0, foreground] == torch.tensor(LARGE_BOX)).all()


@EVERY_VARIANT
def test_500_boxes_train_at_strides_of_8_to_128(variant: Variant):
    model = tiny(variant, num_levels=5)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 256, 256), generator=generator, dtype=torch.uint8)
    boxes = crowd(250)
    truth = instances((256, 256), boxes, [i % NUM_CLASSES for i in range(len(boxes))])
    inputs = [{"image": image, "instances": truth}]
    assert_trains_and_detects(model, inputs)
    targets = targets_of(model, inputs)
    served = targets.boxes[0, targets.foreground[0]].unique(dim=0)
    assert len(served) > 100


@EVERY_VARIANT
def test_of_identical_boxes_of_a_class_one_is_served(variant: Variant):
    inputs = inputs_with([SOME_BOX] * 2, [1, 1])
    losses = tiny(variant)(inputs)
    assert tiny(variant)(inputs) == losses
    if variant.winner != "any":
        assert tiny(variant)(inputs_with([SOME_BOX], [1])) == losses


@EVERY_VARIANT
@pytest.mark.parametrize("classes", [[1, 2], [2, 1]], ids=str)
def test_which_of_identical_boxes_of_two_classes_is_served(variant: Variant, classes: list[int]):
    model = tiny(variant)
    inputs = inputs_with([SOME_BOX] * 2, classes)
    losses = assert_trains_and_detects(model, inputs)
    assert tiny(variant)(inputs) == losses
    dense = model.run(model.preprocess_image(inputs))
    targets = model.targets(dense, model.ground_truth(inputs))
    foreground = targets.foreground[0]
    labels = targets.labels[0, foreground]
    assert set(labels.tolist()) <= set(classes) and foreground.any()
    alone = [
        targets_of(tiny(variant), inputs_with([SOME_BOX], [label])).foreground[0]
        for label in classes
    ]
    if variant.winner == "predicted":
        assert torch.equal(foreground, alone[0] | alone[1])
        for mine, other, label in ((*alone, classes[0]), (*alone[::-1], classes[1])):
            assert (targets.labels[0, mine & ~other] == label).all()
    elif variant.winner != "any":
        assert torch.equal(foreground, alone[0])
        expected = torch.full_like(labels, classes[0])
        if variant.winner == "mixed":
            anchors = torch.cat(dense.priors)[foreground]
            overlaps = pairwise_iou(Boxes(anchors), Boxes(torch.tensor([SOME_BOX])))[:, 0]
            expected[overlaps == overlaps.max()] = classes[1]
            assert set(expected.tolist()) == set(classes)
        assert torch.equal(labels, expected)


@EVERY_VARIANT
@pytest.mark.parametrize("wrong", [-1, NUM_CLASSES, 255])
def test_a_class_id_out_of_range_names_the_image_and_the_range(variant: Variant, wrong: int):
    inputs = batch("usual")
    inputs[1]["instances"].gt_classes[1] = wrong
    with pytest.raises(ValueError, match=rf"image_1.jpg has the class ids .*{wrong}.*0 to 3;"):
        tiny(variant)(inputs)


@EVERY_VARIANT
def test_class_ids_at_both_ends_of_the_range_are_taken(variant: Variant):
    boxes, classes = [[4.0, 4.0, 30.0, 30.0], [50.0, 20.0, 90.0, 60.0]], [0, NUM_CLASSES - 1]
    inputs = inputs_with(boxes, classes)
    assert_trains_and_detects(tiny(variant), inputs)
    targets = targets_of(tiny(variant), inputs)
    assert set(targets.labels[0, targets.foreground[0]].tolist()) == set(classes)


@EVERY_VARIANT
@pytest.mark.parametrize(("wrong", "side"), [("nan", 0), ("-inf", 1), ("inf", 2), ("nan", 3)])
def test_a_coordinate_that_is_not_finite_names_the_image_and_the_box(
    variant: Variant, wrong: str, side: int
):
    inputs = inputs_with([SOME_BOX, SOME_BOX])
    inputs[0]["instances"].gt_boxes.tensor[1, side] = float(wrong)
    with pytest.raises(ValueError, match=rf"image_0.jpg has 1 ground-truth box.*{wrong}.*correct"):
        tiny(variant)(inputs)


WHOLE_NUMBERS = [
    torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip


@EVERY_VARIANT
def test_class_ids_that_are_whole_numbers_of_any_dtype_give_equal_losses(variant: Variant):
    expected = tiny(variant)(batch("usual"))
    for dtypes in zip(WHOLE_NUMBERS[::2], WHOLE_NUMBERS[1::2]):
        inputs = batch("usual")
        for image, dtype in zip(inputs, dtypes):
            image["instances"].gt_classes = image["instances"].gt_classes.to(dtype)
        assert tiny(variant)(inputs) == expected, dtypes
        kept = tuple(image["instances"].gt_classes.dtype for image in inputs)
        assert kept == dtypes  # the batch is the caller's


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.int32], ids=str)
def test_boxes_of_any_dtype_are_float32(dtype: torch.dtype):
    inputs = inputs_with([SOME_BOX])
    inputs[0]["instances"].gt_boxes.tensor = torch.tensor([SOME_BOX], dtype=dtype)
    truth = tiny_fcos().ground_truth(inputs)
    assert truth[0].gt_boxes.tensor.dtype == torch.float32
    assert truth[0].gt_boxes.tensor.tolist() == [SOME_BOX]


def fields(**changes: Any) -> Instances:
    """Two objects with other fields than usual; None removes one, and no length is checked."""
    found = instances((64, 96), [SOME_BOX, SOME_BOX], [0, 1]).get_fields()
    truth = Instances((64, 96))
    truth.get_fields().update({k: v for k, v in {**found, **changes}.items() if v is not None})
    return truth


WRONG = {
    "no boxes": (fields(gt_boxes=None), r"fields \['gt_classes'\], expected gt_boxes and gt_cl"),
    "no classes": (fields(gt_classes=None), r"fields \['gt_boxes'\], expected gt_boxes and"),
    "a dict": ({"gt_classes": [0]}, "'instances' that are a dict, expected detectron2's Inst"),
    "a mask": (fields(gt_classes=torch.tensor([True, False])), "torch.bool tensor .* 0 to 3"),
    "a column": (fields(gt_classes=torch.tensor([[0], [1]])), r"shape \(2, 1\); expected"),
    "a list": (fields(gt_classes=[0, 1]), "gt_classes that are a list; expected a whole"),
    "a fraction": (fields(gt_classes=torch.tensor([0.0, 1.5])), r"ids \[0.0, 1.5\], expected a"),
    "NaN": (fields(gt_classes=torch.tensor([0.0, float("nan")])), "nan.*, expected a whole"),
    "negative": (fields(gt_classes=torch.tensor([0, -1])), r"\[-1, 0\], expected a whole"),
    "a huge class": (fields(gt_classes=torch.tensor([0.0, 1e30])), r"e\+30\], expected a whole"),
    "fewer classes": (fields(gt_classes=torch.tensor([0])), "'gt_boxes': 2, 'gt_classes': 1"),
    "fewer masks": (fields(gt_masks=[0]), "'gt_masks': 1.*one entry for each box"),
    "plain boxes": (fields(gt_boxes=torch.zeros(2, 4)), "gt_boxes that are a Tensor.*Boxes"),
    "too far": (fields(gt_boxes=Boxes(torch.tensor([SOME_BOX, [0, 0, 1e30, 9]]))), "beyond 1e.06"),
}


@pytest.mark.parametrize(("truth", "message"), WRONG.values(), ids=list(WRONG))
def test_ground_truth_that_cannot_be_is_named_with_its_image(truth: Instances, message: str):
    inputs = batch("usual")
    inputs[1]["instances"] = truth
    with pytest.raises(ValueError, match=f"image_1.jpg has .*{message}"):
        tiny_fcos()(inputs)


def test_inverted_boxes_are_warned_of(caplog: pytest.LogCaptureFixture):
    logger._LOG_COUNTER.clear()  # it warns once in a process
    tiny_fcos().ground_truth(inputs_with([[10.0, 10.0, 10.0, 30.0]]))
    assert not caplog.records  # what cropping leaves of a box may be a line
    for _ in range(2):
        tiny_fcos().ground_truth(inputs_with([[50.0, 10.0, 20.0, 30.0]]))
    [record] = caplog.records
    assert "image_0.jpg has 1" in record.message and "XYWH" in record.message
