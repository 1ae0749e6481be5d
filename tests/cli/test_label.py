"""``dense-kd label``, from its arguments to its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from dense_kd.cli import main
from dense_kd.data import generate_shapes, register_annotations
from dense_kd.data.shapes import CLASSES
from dense_kd.evaluation.score_threshold import ScoreThreshold
from dense_kd.pipeline.options import DistillOptions
from dense_kd.pipeline.plan import make_plan
from dense_kd.prediction import Predictor
from helpers.checked_runs import unregister
from helpers.described import picture, write_checkpoint
from helpers.own_datasets import scenes, write_yolo
from helpers.small_distillation import SMALL


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("label") / "model_final.pth"
    return write_checkpoint(path, class_names=list(CLASSES))


@pytest.fixture
def photos(tmp_path) -> Path:
    (tmp_path / "photos" / "b").mkdir(parents=True)
    for name in ("1.png", "b/2.png"):
        picture(seed=len(name)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def label(*arguments) -> int:
    return main(["label", *map(str, arguments), "--device", "cpu"])


def test_detections_become_a_dataset_that_can_be_registered(weights, photos, tmp_path, capsys):
    file = tmp_path / "new" / "labels.json"
    assert label(weights, photos, "--output", file, "--threshold", 0.6) == 0
    content = json.loads(file.read_text())
    annotations = content["annotations"]
    assert capsys.readouterr().out == f"{len(annotations)} objects in 2 images: {file}\n"
    register_annotations("labelled_by_a_teacher", file, photos)
    try:
        records = DatasetCatalog.get("labelled_by_a_teacher")
    finally:
        unregister("labelled_by_a_teacher")
    predictor = Predictor(weights, device="cpu", score_threshold=0.6)
    scores = iter(annotations)
    assert [Path(r["file_name"]).relative_to(photos).as_posix() for r in records] == [
        "1.png",
        "b/2.png",
    ]
    for record in records:
        found = predictor(record["file_name"])
        assert len(found) == len(record["annotations"]) > 0
        for each, label_, score in zip(
            record["annotations"], found.instances.pred_classes, found.instances.scores
        ):
            assert each["category_id"] == label_
            assert next(scores)["score"] == pytest.approx(score.item()) and score >= 0.6


def test_images_that_cannot_be_read_are_left_out_and_named(weights, photos, tmp_path, capsys):
    (photos / "a.png").write_text("no image")
    file = tmp_path / "labels.json"
    assert label(weights, photos, photos / "1.png", "--output", file) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"dense-kd: {photos}/a.png: it is no image")
    names = [image["file_name"] for image in json.loads(file.read_text())["images"]]
    assert names == [str(photos / "1.png"), str(photos / "b" / "2.png")]  # of several places


def test_the_score_is_that_of_the_largest_f1_on_labelled_images(weights, tmp_path, capsys, photos):
    root = tmp_path / "data"
    for split in ("train", "val"):
        generate_shapes(root, split, 3, image_size=(64, 64))
    # The truth of an image is what the detector finds in it from a score of 0.7 on.
    predictor, annotations = Predictor(weights, device="cpu", score_threshold=0.7), []
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    ids = {each["name"]: each["id"] for each in content["categories"]}
    for image in content["images"]:
        for each in predictor(root / "val" / image["file_name"]).to_coco(image["id"]):
            category = ids[each["category"]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category,
                 "bbox": each["bbox"], "area": each["bbox"][2] * each["bbox"][3], "iscrowd": 0}
            )  # fmt: skip
    assert len(annotations) > 3
    file.write_text(json.dumps({**content, "annotations": annotations}))
    assert label(weights, "--calibrate", root) == 0
    said = capsys.readouterr().out
    assert said.startswith("score_thresh=0.7") and "(F1 1.000, at an IoU of 0.5), by 3 im" in said
    output = tmp_path / "labels.json"
    assert label(weights, photos, "--calibrate", root, "--output", output) == 0
    assert min(a["score"] for a in json.loads(output.read_text())["annotations"]) >= 0.7


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "nothing to label; give images"),
        (["photos", "--threshold", "0.5", "--calibrate", "data"], "give one"),
        (["photos", "--output", "."], "the output . is a folder, expected a file"),
        (["photos", "--output", "afile/labels.json"], "afile is a file, expected a folder"),
        (["photos", "--output", "mine.json"], "mine.json is there already, from an earlier run or"),
        (["photos", "--output", "mine.json", "--calibrate", "data"], "mine.json is there already"),
        (["--calibrate", "nowhere"], "nowhere does not exist"),
        (["photos", "--seed", "3"], "--seed: of the data of --calibrate; give it, or leave this"),
        (["photos", "--val-fraction", "0.3", "--layout", "voc"], "--layout, --val-fraction: of"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    arguments, said, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("afile", "mine.json"):
        (tmp_path / name).write_text("by hand")
    monkeypatch.setattr(Predictor, "predict", None)  # nothing is detected
    assert label(weights, *arguments) == 1
    assert said in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == "by hand"


def test_labels_that_are_there_are_replaced_when_that_is_asked_for_and_all_is_done(
    weights, photos, tmp_path, monkeypatch, caplog
):
    file, incomplete = tmp_path / "labels.json", tmp_path / "labels.incomplete.json"
    file.write_text("by hand")
    predict, batch = Predictor.predict, ["--batch-size", 1, "--overwrite"]

    def interrupted(predictor, images, **options):
        yield next(predict(predictor, images, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "predict", interrupted)
    assert label(weights, photos, "--output", file, *batch) == 130
    assert file.read_text() == "by hand"
    content = json.loads(incomplete.read_text())
    assert [image["file_name"] for image in content["images"]] == ["1.png"]
    assert content["info"]["description"].endswith("; INCOMPLETE, of 1 of 2 images")
    assert "labels.incomplete.json has what was found in 1 of 2 images" in caplog.text
    monkeypatch.setattr(Predictor, "predict", predict)
    assert label(weights, photos, "--output", file) == 1
    assert label(weights, photos, "--output", file, *batch) == 0
    content = json.loads(file.read_text())
    assert len(content["images"]) == 2 and "INCOMPLETE" not in content["info"]["description"]
    assert not incomplete.exists()


@pytest.mark.parametrize("given", [{}, {"seed": 5}, {"val_fraction": 0.5, "layout": "yolo"}])
def test_the_score_is_chosen_by_the_images_that_distill_does_not_train_on(
    given, weights, tmp_path, monkeypatch
):
    write_yolo(tmp_path / "images", tmp_path / "labels", scenes(20))
    (tmp_path / "classes.txt").write_text("circle\nsquare\n")
    seen = []

    def calibrate(predictor, data, progress):
        seen.append(data)
        return ScoreThreshold(0.5, 0.5, 0.5, 0.5, 0.5)

    monkeypatch.setattr("dense_kd.prediction.calibrate", calibrate)
    options = [str(x) for k, v in given.items() for x in ("--" + k.replace("_", "-"), v)]
    assert label(weights, "--calibrate", tmp_path, *options) == 0
    plan = make_plan(str(tmp_path), DistillOptions(**{**SMALL, "method": "ld", **given}))
    assert (seen[0].val, seen[0].train) == (plan.data.val, plan.data.train)


def test_labels_of_other_classes_choose_no_score(weights, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "data" / "a.png")
    Image.new("RGB", (33, 32)).save(tmp_path / "data" / "b.png")
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
    images = [{"id": 1, "file_name": "a.png", "height": 32, "width": 32},
              {"id": 2, "file_name": "b.png", "height": 32, "width": 33}]  # fmt: skip
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": boxes}
    (tmp_path / "data" / "labels.json").write_text(json.dumps(content))
    assert label(weights, "--calibrate", tmp_path / "data") == 1
    assert "has the classes cat, and none of them is one of the detector's" in (
        capsys.readouterr().err
    )
