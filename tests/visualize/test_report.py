"""Tests of the report: one page, the curves and the pictures in it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from dense_kd.detectors.base.images import CHANNELS
from dense_kd.visualize import choose_images, compare, draw_boxes, save_curves, write_report
from dense_kd.visualize.drawing import ComparedImage, Panel, match
from dense_kd.visualize.report import headline, table_rows

VOID = {"img", "meta", "br"}


class Page(HTMLParser):
    """Collects what the tests ask about, and fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def result(ap, **changes):
    metrics = {"AP": ap, "AP50": 50.0, "AP75": 30.0, "APs": 20.0, "APm": 40.0, "APl": None}
    return {**metrics, "parameters": 980_000, "iterations": 1200, "seconds": 90.0, **changes}


def summary_of(baseline=28.1, distilled=31.8, num_seeds=1):
    students = {"baseline": result(baseline), "distilled": result(distilled)}
    seeds = {str(seed): dict(students) for seed in range(1, num_seeds + 1)}
    return {"teacher": result(57.0), **students, "seeds": seeds, "settings": {"torch": "<2.12>"}}


def curves_of(num_seeds=1):
    def run(**terms):
        return [
            {"iteration": i, "lr": 1e-3, "total_loss": 2.0, "loss_cls": 1 / i, **terms}
            for i in (19, 39, 59)
        ] + [{"iteration": 60, "bbox/AP": 20.0}]

    return {
        "teacher": [run()],
        "baseline": [run()] * num_seeds,
        "distilled": [run(kd_bckd_loss_cls=0.5, kd_bckd_loss_loc=0.2)] * num_seeds,
    }


def pictures(count=6):
    picture = Image.new("RGB", (32, 32), "navy")
    titles = ("truth", "teacher", "baseline", "distilled")
    return [
        ComparedImage(f"{i}.png", [Panel(title, picture, "2 objects") for title in titles])
        for i in range(count)
    ]


def page_of(tmp_path, **changes):
    path = tmp_path / "report.html"
    arguments = {"summary": summary_of(), "curves": curves_of(), "images": pictures(), **changes}
    write_report(str(path), **arguments, score_threshold=0.4)
    return path.read_text(encoding="utf-8")


def test_the_page_refers_to_nothing_outside_of_it(tmp_path):
    text = page_of(tmp_path)
    page = Page(text)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not page.all("link") and not page.all("script")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))


def test_the_page_has_a_row_of_four_pictures_with_texts_for_each_image(tmp_path):
    page = Page(page_of(tmp_path))
    assert sum(div.get("class") == "row" for div in page.all("div")) == 6
    assert len(page.all("img")) == 24
    assert page.all("img")[1]["alt"] == "0.png, teacher: 2 objects"


def test_ids_are_unique_in_the_page_and_references_have_their_target(tmp_path):
    text = page_of(tmp_path)
    ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    assert references and references <= set(ids)


def test_the_page_says_what_happened_and_from_which_score_on_boxes_are_drawn(tmp_path):
    text = Page(page_of(tmp_path)).text
    assert "Distillation took the student from 28.1 to 31.8 AP; its teacher has 57.0." in text
    assert "score 0.4 or more" in text
    assert "median of 20 iterations" in text


def test_a_metric_without_value_is_shown_as_not_available(tmp_path):
    rows = dict(table_rows(summary_of()))
    assert rows["teacher"][:6] == ["57.0", "50.0", "30.0", "20.0", "40.0", "n/a"]
    assert rows["teacher"][6:] == ["0.98 M", "1200", "1.5"]
    assert rows["gain"][:6] == ["+3.7", "+0.0", "+0.0", "+0.0", "+0.0", "n/a"]
    assert "n/a" in Page(page_of(tmp_path)).text


def test_several_seeds_have_a_row_each_and_one_has_not():
    assert "distilled, seed 3" in dict(table_rows(summary_of(num_seeds=3)))
    assert len(table_rows(summary_of(num_seeds=1))) == 5  # header, three detectors, gain
    assert "(mean of 3 seeds)" in headline(summary_of(num_seeds=3))


@pytest.mark.parametrize(
    "baseline, distilled, words",
    [
        (31.8, 28.1, "lowered the student from 31.8 to 28.1 AP"),
        (28.11, 28.12, "left the student at 28.1 AP"),
        (None, 28.1, "found nothing"),
    ],
)
def test_the_headline_does_not_call_every_outcome_a_gain(baseline, distilled, words):
    assert words in headline(summary_of(baseline, distilled))


def test_a_student_that_was_not_trained_alone_has_no_gain(tmp_path):
    summary = summary_of()
    del summary["baseline"]
    assert headline(summary) == "The distilled student has 31.8 AP; its teacher has 57.0."
    assert [name for name, _ in table_rows(summary)] == ["", "teacher", "distilled"]
    page = Page(page_of(tmp_path, summary=summary))
    assert "It was not trained" in page.text and "Baseline" not in page.text


def test_metrics_on_test_images_have_a_table_of_their_own(tmp_path):
    summary = {**summary_of(), "test": {"teacher": result(51.3), "distilled": result(None)}}
    page = Page(page_of(tmp_path, summary=summary))
    assert len(page.all("table")) == len(Page(page_of(tmp_path)).all("table")) + 1
    assert "on the test images" in page.text and "51.3" in page.text


def test_text_from_outside_is_escaped(tmp_path):
    assert "&lt;2.12&gt;" in page_of(tmp_path)


def test_the_curves_follow_the_colour_of_the_text_in_light_and_dark(tmp_path):
    page = page_of(tmp_path, curves=curves_of(num_seeds=3))
    assert page.count("<svg") == 4
    assert "currentColor" in page and "#010203" not in page


def test_a_legend_names_a_line_once_whatever_the_number_of_seeds(tmp_path):
    page = page_of(tmp_path, curves=curves_of(num_seeds=3))
    assert page.count(">kd_bckd_loss_loc<") == 1


def test_runs_without_distillation_losses_have_no_panel_of_them(tmp_path):
    assert page_of(tmp_path, curves={"baseline": [[]], "distilled": [[]]}).count("<svg") == 3


def test_the_curves_are_saved_as_a_picture(tmp_path):
    save_curves(str(tmp_path / "curves.png"), curves_of())
    assert Image.open(tmp_path / "curves.png").size == (2400, 400)


def test_pictures_are_spread_over_the_images_with_several_objects():
    dataset = [{"name": i, "annotations": [{}] * (i % 5)} for i in range(100)]
    chosen = choose_images(dataset, 6)
    assert [image["name"] for image in chosen] == [3, 23, 43, 59, 79, 99]
    assert choose_images(dataset, 6) == chosen


def test_a_dataset_with_few_objects_gives_pictures_as_well():
    dataset = [{"annotations": []} for _ in range(4)]
    assert len(choose_images(dataset, 6)) == 4


def test_a_detection_is_right_once_per_object_and_of_its_class():
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    boxes = truth[[0, 0, 1, 1]]
    classes = torch.tensor([1, 1, 0, 2])
    assert match(boxes, classes, truth, torch.tensor([1, 2])) == [True, False, False, True]
    assert match(boxes, classes, truth[:0], classes[:0]) == [False] * 4
    assert match(boxes[:0], classes[:0], truth, torch.tensor([1, 2])) == []


def test_boxes_are_drawn_enlarged_and_in_the_colour_of_their_class():
    pixels = np.zeros((32, 40, 3), dtype=np.uint8)
    boxes = torch.tensor([[10.0, 16.0, 20.0, 30.0], [0.0, 0.0, 40.0, 32.0]])
    picture = draw_boxes(pixels, boxes, ["circle 0.90", "a long label outside"], [0, 1], scale=3)
    assert picture.size == (120, 96)
    assert picture.getpixel((45, 90)) == (255, 176, 0)
    assert picture.getpixel((118, 60)) == (76, 201, 240)


class Detector(torch.nn.Module):
    """Finds two circles, one below the threshold, and asks for the eval mode."""

    def forward(self, batched_inputs):
        assert not self.training
        assert batched_inputs[0]["image"][:, 0, 0].tolist() == [30, 20, 10]  # BGR
        found = Instances((32, 32))
        found.pred_boxes = Boxes(torch.tensor([[4.0, 4.0, 16.0, 16.0]] * 3))
        found.scores = torch.tensor([0.9, 0.5, 0.1])
        found.pred_classes = torch.tensor([0, 0, 0])
        return [{"instances": found}]


@pytest.mark.parametrize("input_format", CHANNELS)
def test_each_detector_is_shown_the_image_in_its_own_format(tmp_path, input_format):
    class Detector(torch.nn.Module):
        def forward(self, batched_inputs):
            seen.append(batched_inputs[0]["image"])
            found = Instances((2, 3), pred_boxes=Boxes(torch.zeros(0, 4)))
            found.scores, found.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
            return [{"instances": found}]

    seen = []
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14).save(path)
    record = {"file_name": str(path), "height": 2, "width": 3, "annotations": []}
    detector = Detector()
    detector.input_format = input_format
    compare([record], {"BGR": Detector(), "other": detector}, ["a"], score_threshold=0.5)
    for image, image_format in zip(seen, ("BGR", input_format)):
        expected = read_image(str(path), image_format).transpose(2, 0, 1)
        assert np.array_equal(image.numpy(), expected)


def test_detectors_are_compared_on_the_image_as_it_is(tmp_path):
    Image.new("RGB", (32, 32), (10, 20, 30)).save(tmp_path / "a.png")
    annotation = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    image = {
        "file_name": str(tmp_path / "a.png"),
        "height": 32,
        "width": 32,
        "annotations": [
            {**annotation, "bbox": [4, 4, 12, 12], "category_id": 0},
            {**annotation, "bbox": [20, 20, 8, 8], "category_id": 1},
        ],
    }
    (row,) = compare([image], {"teacher": Detector()}, ["circle", "star"], score_threshold=0.4)
    assert row.name == "a.png"
    captions = {panel.title: panel.caption for panel in row.panels}
    assert captions == {"truth": "2 objects", "teacher": "1 of 2 found, 1 wrong"}
    assert row.panels[1].picture.getpixel((90, 90)) == (10, 20, 30)


def test_pictures_of_large_images_are_smaller_and_detectors_see_them_resized(tmp_path):
    class Detector(torch.nn.Module):
        def forward(self, batch):
            self.size = tuple(batch[0]["image"].shape[-2:])
            found = Instances((batch[0]["height"], batch[0]["width"]))
            found.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 300.0, 200.0]]))
            found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
            return [{"instances": found}]

    file = tmp_path / "large.png"
    Image.new("RGB", (600, 400)).save(file)
    box = dict(bbox=[0, 0, 300, 200], bbox_mode=BoxMode.XYXY_ABS, category_id=0)
    image = dict(file_name=str(file), height=400, width=600, annotations=[box])
    detector = Detector()
    resize = [ResizeShortestEdge(100, 1000)]
    options = dict(score_threshold=0.5, augmentations=resize, longest_edge=300)
    (row,) = compare([image], {"student": detector}, ["cat"], **options)
    assert detector.size == (100, 150)
    assert [panel.picture.size for panel in row.panels] == [(300, 200)] * 2
    assert row.panels[1].caption == "1 of 1 found, 0 wrong"
