"""Pascal VOC's numbers, and COCO's of the same detections."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from dense_kd.evaluation import VOCEvaluator
from dense_kd.evaluation.errors import EvaluationError
from dense_kd.evaluation.voc import annotations_as_coco
from helpers.two_processes import launch_two
from helpers.voc_sets import VOCObject, register_voc

CAT = VOCObject("cat", (1, 1, 10, 10))
FAR = [40.0, 30.0, 50.0, 40.0]


@pytest.fixture
def register(tmp_path):
    """A dataset of the name "a_voc"; boxes of 10 x 10 pixels begin at 0 of detectron2's."""
    names = []

    def make(images, **options):
        names.append("a_voc")
        register_voc("a_voc", tmp_path, images, **options)

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def output(boxes, scores, classes=None) -> dict:
    found = Instances((48, 64))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.tensor(scores)
    found.pred_classes = torch.tensor(classes or [0] * len(scores))
    return {"instances": found}


def evaluated(evaluator, outputs):
    evaluator.reset()
    for index, each in enumerate(outputs):
        evaluator.process([{"image_id": f"{index:06d}"}], [each])
    return evaluator.evaluate()


HALF = [[CAT], [CAT, VOCObject("cat", (31, 1, 40, 10), difficult=True)]]
"""Of which the first cat is found, a box far away is wrong, and the difficult one is ignored."""
FOUND = [
    output([[0, 0, 10, 10]], [0.9]),
    output([FAR, [30, 0, 40, 10]], [0.8, 0.7]),
]


@pytest.mark.parametrize(
    ("year", "ap"), [(2007, 100 * 6 / 11), (2012, 100 * 0.5)], ids=["11 recalls", "all recalls"]
)
def test_half_of_the_objects_found_first_is_six_of_11_recalls_and_51_of_101(register, year, ap):
    register(HALF, classes=["cat"], year=year)
    found = evaluated(VOCEvaluator("a_voc"), FOUND)
    assert found["bbox"] == pytest.approx({"AP": ap, "AP50": ap, "AP75": ap})
    of_coco = found["bbox_coco"]
    assert [of_coco[name] for name in ("AP", "AP50", "AP75", "APs")] == pytest.approx(
        [100 * 51 / 101] * 4
    )
    assert of_coco["AR100"] == of_coco["ARs"] == 50 and math.isnan(of_coco["APm"])


@pytest.mark.parametrize("implementation", ["pycocotools", "hotcoco"])
def test_the_first_numbers_are_those_of_detectron2(register, implementation):
    if implementation == "hotcoco":
        pytest.importorskip("hotcoco")
    generator = torch.Generator().manual_seed(0)
    images, outputs = [], []
    for _ in range(6):
        corners = torch.randint(1, 30, (3, 2), generator=generator).tolist()
        images.append([
            VOCObject(name, (x, y, x + 14, y + 12))
            for name, (x, y) in zip(("cat", "dog", "cat"), corners)
        ])  # fmt: skip
        boxes = torch.tensor([[*each.box] for each in images[-1]]).float()
        boxes += 3 * torch.randn(boxes.shape, generator=generator)
        outputs.append(
            output(boxes.tolist(), torch.rand(3, generator=generator).tolist(), [0, 1, 0])
        )
    register(images)
    reference = evaluated(PascalVOCDetectionEvaluator("a_voc"), outputs)
    found = evaluated(VOCEvaluator("a_voc", implementation=implementation), outputs)
    assert found["bbox"] == reference["bbox"] and 0 < found["bbox"]["AP50"] < 100
    assert 0 < found["bbox_coco"]["AP50"] < 100


def test_all_found_is_100_and_nothing_found_is_0_by_both(register):
    register([[CAT], [CAT, VOCObject("dog", (21, 5, 30, 20))], []])
    perfect = [
        output([x["bbox"] for x in image["annotations"]], [1.0] * len(image["annotations"]),
               [x["category_id"] for x in image["annotations"]])
        for image in DatasetCatalog.get("a_voc")
    ]  # fmt: skip
    for outputs, ap in ((perfect, 100), ([output([], [])] * 3, 0)):
        found = evaluated(VOCEvaluator("a_voc"), outputs)
        assert found["bbox"]["AP"] == pytest.approx(ap)
        assert found["bbox_coco"]["AP"] == found["bbox_coco"]["APs"] == pytest.approx(ap)
        assert math.isnan(found["bbox_coco"]["APl"])


def test_a_box_is_that_which_detectron2_reads(register):
    register([[VOCObject("dog", (3, 5, 12, 30))], [CAT]])
    folder = MetadataCatalog.get("a_voc").dirname
    truth = annotations_as_coco(["000000"], f"{folder}/Annotations/{{}}.xml", ["cat", "dog"])
    (found,) = truth.dataset["annotations"]
    x1, y1, x2, y2 = DatasetCatalog.get("a_voc")[0]["annotations"][0]["bbox"]
    assert found["bbox"] == [x1, y1, x2 - x1, y2 - y1] == [2, 4, 10, 26]
    assert (found["area"], found["category_id"], found["iscrowd"]) == (260, 1, 0)


def test_an_object_of_a_class_that_the_dataset_has_not_names_its_file(register, tmp_path):
    register([[CAT], [VOCObject("bird", (1, 1, 5, 5))]])
    template = f"{tmp_path}/Annotations/{{}}.xml"
    with pytest.raises(EvaluationError, match=r"000001.xml has .*'bird', expected one of cat, dog"):
        annotations_as_coco(["000000", "000001"], template, ["cat", "dog"])


def test_an_implementation_that_is_none_is_refused_at_once(register):
    register([[CAT]])
    with pytest.raises(ValueError, match="implementation='cocoapi': expected auto or one of"):
        VOCEvaluator("a_voc", implementation="cocoapi")


def _evaluate_half(folder: str) -> None:
    evaluator = VOCEvaluator("a_voc")
    evaluator.reset()
    rank = comm.get_rank()
    evaluator.process([{"image_id": f"{rank:06d}"}], [FOUND[rank]])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(evaluator.evaluate()))


@pytest.mark.slow
def test_two_processes_with_an_image_each_give_the_same(register, tmp_path):
    register(HALF, classes=["cat"])
    launch_two(_evaluate_half, tmp_path)
    found, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert found["bbox"]["AP"] == pytest.approx(100 * 6 / 11) and other is None
    assert found["bbox_coco"]["AP"] == pytest.approx(100 * 51 / 101)
