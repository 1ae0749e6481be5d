"""A detector as a graph of tensors detects what the detector does."""

from __future__ import annotations

import pytest
import torch

from dense_kd.export import DetectionGraph
from dense_kd.export.verifying import batched
from helpers.builders import tiny_fcos
from helpers.detector_variants import VARIANTS

SIZES = [(50, 90), (64, 33)]


def images(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in sizes]


def assert_detects_the_same(model, batch):
    graph = DetectionGraph(model)
    with torch.no_grad():
        boxes, scores, classes, counts = graph(*batched(batch, graph.multiple))
        expected = [x["instances"] for x in model([{"image": image} for image in batch])]
    assert counts.tolist() == [len(x) for x in expected] and counts.sum() > 0
    for i, found in enumerate(expected):
        n = len(found)
        torch.testing.assert_close(boxes[i, :n], found.pred_boxes.tensor, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(scores[i, :n], found.scores)
        assert classes[i, :n].equal(found.pred_classes)
        assert (boxes[i, n:] == 0).all() and (scores[i, n:] == 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_of_images_of_two_sizes_gives_the_detections_of_the_detector(name: str):
    model = VARIANTS[name].build().eval()
    model.test_score_thresh = min(model.test_score_thresh, 0.02)
    assert_detects_the_same(model, images())


@pytest.mark.parametrize(
    "options",
    [{"clip_before_nms": True}, {"score": "product"}, {"max_detections_per_image": 3}],
    ids=str,
)
def test_options_of_inference_are_those_of_the_detector(options):
    assert_detects_the_same(tiny_fcos(**{"test_score_thresh": 0.02, **options}).eval(), images())


def test_what_is_outside_of_an_image_changes_nothing():
    model = tiny_fcos(test_score_thresh=0.02).eval()
    graph = DetectionGraph(model)
    batch, sizes = batched(images(), graph.multiple)
    other = batch.clone()
    other[0, :, SIZES[0][0] :] = 255
    with torch.no_grad():
        for ours, theirs in zip(graph(batch, sizes), graph(other, sizes)):
            assert ours.equal(theirs)


@pytest.mark.parametrize("score", ["sqrt", "product"])
def test_raw_outputs_are_the_boxes_and_scores_of_all_predictions(score: str):
    model = tiny_fcos(score=score).eval()
    graph = DetectionGraph(model, "raw")
    batch, sizes = batched(images(), graph.multiple)
    with torch.no_grad():
        boxes, scores = graph(batch, sizes)
        dense = model.run(model.preprocess_image([{"image": x} for x in images()]))
        levels, factors = model.detection_scores(dense)
    assert (factors is None) == (score == "sqrt")
    expected = torch.cat(levels, dim=1)
    if factors is not None:
        expected = expected * torch.cat(factors, dim=1)[..., None]
    assert boxes.equal(dense.all_boxes) and scores.equal(expected)


def test_outputs_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="outputs='boxes': expected one of"):
        DetectionGraph(tiny_fcos(), "boxes")
