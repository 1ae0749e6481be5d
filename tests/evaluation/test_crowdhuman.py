"""The metrics of CrowdHuman, against the released evaluation and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from dense_kd.data.crowdhuman import load_crowdhuman
from dense_kd.evaluation import CrowdHumanEvaluator
from dense_kd.evaluation.crowdhuman import (
    RATES,
    ScoredImage,
    average_precision,
    jaccard_index,
    largest_matching,
    metrics,
    miss_rate,
    outcomes,
)
from helpers.builders import GOLDEN
from helpers.two_processes import launch_two

EXPECTED = json.loads((GOLDEN / "crowdhuman_expected.json").read_text())


def detections() -> list[dict]:
    return json.loads((GOLDEN / "crowdhuman_dets.json").read_text())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The golden images, as a registered dataset."""
    folder = tmp_path_factory.mktemp("crowdhuman")
    for each in detections():
        Image.new("RGB", (each["width"], each["height"])).save(folder / f"{each['ID']}.jpg")
    name, odgt = "crowdhuman_golden", str(GOLDEN / "crowdhuman_gt.odgt")
    DatasetCatalog.register(name, lambda: load_crowdhuman(odgt, str(folder)))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)


def give(evaluator: CrowdHumanEvaluator, found: list[dict]) -> None:
    for each in found:
        instances = Instances((each["height"], each["width"]))
        boxes = torch.tensor(each["det"], dtype=torch.float64).reshape(-1, 5)
        instances.pred_boxes, instances.scores = Boxes(boxes[:, :4]), boxes[:, 4]
        evaluator.process([{"image_id": each["ID"]}], [{"instances": instances}])


@pytest.mark.parametrize(
    "case, options", [("default", {}), ("iou0.7_mr-4", {"iou": 0.7, "miss_rate": "MR^-4"})]
)
def test_it_gives_the_numbers_of_the_released_evaluation(dataset, case, options):
    evaluator = CrowdHumanEvaluator(dataset, **options)
    give(evaluator, [{**each, "det": []} for each in detections()])
    evaluator.reset()
    give(evaluator, detections())
    found = evaluator.evaluate()["bbox"]
    for name, value in found.items():
        # The evaluator's boxes are the detector's float32.
        assert value == pytest.approx(100 * EXPECTED[case][name], abs=1e-4), name


def _evaluate_half(output: str) -> None:
    from detectron2.utils import comm

    DatasetCatalog.register(
        "crowdhuman_both",
        lambda: load_crowdhuman(str(GOLDEN / "crowdhuman_gt.odgt"), f"{output}/images"),
    )
    evaluator = CrowdHumanEvaluator("crowdhuman_both")
    give(evaluator, detections()[comm.get_rank() :: 2])
    found = evaluator.evaluate()
    (Path(output) / f"{comm.get_rank()}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_with_half_of_the_images_give_the_same(tmp_path):
    (tmp_path / "images").mkdir()
    for each in detections():
        size = (each["width"], each["height"])
        Image.new("RGB", size).save(tmp_path / "images" / f"{each['ID']}.jpg")
    launch_two(_evaluate_half, tmp_path)
    found, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert found["bbox"]["AP"] == pytest.approx(100 * EXPECTED["default"]["AP"], abs=1e-4)
    assert other == {}


def image(objects, boxes, scores, regions=()) -> ScoredImage:
    return ScoredImage.of((100, 100), objects, regions, boxes, scores)


A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]
REGION = [50, 50, 90, 90]


def test_a_second_detection_of_an_object_is_wrong_and_one_in_a_region_does_not_count():
    found = image([A, B], [A, A, B, FAR], [0.9, 0.8, 0.95, 0.7], [REGION])
    assert found.scores.tolist() == [0.95, 0.9, 0.8, 0.7]
    assert outcomes(found, 0.5).tolist() == [1, 1, 0, -1]


def test_an_object_in_a_region_is_found_by_a_detection_in_it():
    found = image([FAR], [FAR, FAR], [0.9, 0.8], [REGION])
    assert outcomes(found, 0.5).tolist() == [1, -1]


def test_average_precision_and_miss_rate_by_hand():
    results = np.array([1, 0, 1])  # of 4 objects in 2 images
    # Recall 1/4, 1/4, 2/4 and precision 1, 1/2, 2/3.
    assert average_precision(results, 4) == pytest.approx(0.25 * (1 / 2 + 2 / 3) / 2)
    # False positives per image 0, 0.5, 0.5 and misses 3/4, 3/4, 1/2.
    assert miss_rate(results, 4, 2, [0.01, 0.5, 1.0]) == pytest.approx(
        (0.75 * 0.75 * 0.5) ** (1 / 3)
    )
    assert miss_rate(np.array([1, 1]), 2, 1) == 0.0
    assert miss_rate(np.array([]), 2, 1) == 1.0


def test_the_jaccard_index_pairs_as_many_as_can_be():
    wide = [0, 0, 14, 10]  # overlaps A by 10/14; so does its shifted copy, and B less
    found = image([A, [4, 0, 14, 10]], [A, wide], [0.9, 0.8])
    assert jaccard_index(found, 0.0) == (pytest.approx(1.0, abs=1e-5), True)
    assert jaccard_index(found, 0.85) == (pytest.approx(0.5, abs=1e-5), True)
    regions = image([A, FAR], [A, FAR, REGION], [0.9, 0.1, 0.9], [REGION])
    assert jaccard_index(regions, 0.5) == (pytest.approx(1.0, abs=1e-5), True)
    assert jaccard_index(image([], [], [], [REGION]), 0.5) == (0.0, False)


@pytest.mark.parametrize("seed", range(30))
def test_a_matching_is_the_largest_and_has_as_many_of_the_first_as_can_be(seed):
    random = np.random.default_rng(seed)
    allowed = random.random((7, 6)) < random.choice([0.15, 0.3, 0.6])
    first = np.flatnonzero(random.random(7) < 0.5)
    pairs = largest_matching(allowed, first)
    assert all(allowed[row, column] for row, column in pairs.items())
    assert len(set(pairs.values())) == len(pairs) == largest(allowed)
    assert sum(row in first for row in pairs) == largest(allowed[first])


def largest(allowed: np.ndarray) -> int:
    """The size of the largest matching, by trying all."""
    if not len(allowed):
        return 0
    rest = allowed[1:]
    sizes = [1 + largest(np.delete(rest, c, axis=1)) for c in np.flatnonzero(allowed[0])]
    return max([largest(rest), *sizes])


def test_boxes_beyond_the_image_are_clipped_to_it():
    found = image([[-10, -10, 10, 10]], [[-50, 0, 10, 10]], [0.9])
    assert found.objects.tolist() == found.boxes.tolist() == [[0, 0, 10, 10]]
    assert outcomes(found, 0.5).tolist() == [1]


def test_without_objects_there_is_no_number_and_without_detections_the_worst():
    assert all(math.isnan(v) for v in metrics([image([], [A], [0.5])]).values())
    assert metrics([image([A], [], [])]) == {"AP": 0.0, "MR": 1.0, "JI": 0.0}


def test_images_that_were_not_evaluated_are_an_error(dataset):
    evaluator = CrowdHumanEvaluator(dataset)
    give(evaluator, detections()[:5])
    with pytest.raises(RuntimeError, match="5 of the 20 images of crowdhuman_golden were"):
        evaluator.evaluate()


@pytest.mark.parametrize(
    "options, said", [({"iou": 1.0}, "iou=1.0"), ({"miss_rate": "MR"}, "MR\\^-2, MR\\^-4")]
)
def test_other_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        CrowdHumanEvaluator("crowdhuman_val", **options)


def test_rates_are_nine_each():
    assert [len(rates) for rates in RATES.values()] == [9, 9]
