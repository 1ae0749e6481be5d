"""Files and folders of images, and what is written of them."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from dense_kd import Predictor
from dense_kd.checkpoint import SaveError
from dense_kd.data.shapes import CLASSES
from dense_kd.evaluation.errors import EvaluationError
from dense_kd.prediction import PredictionError, find_images, predict_files
from helpers.described import picture, write_checkpoint
from helpers.own_datasets import OF_SYSTEMS


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("weights")
    weights = write_checkpoint(folder / "a.pth", class_names=list(CLASSES))
    return Predictor(weights, device="cpu", score_threshold=0.6)


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "photos"
    for seed, name in enumerate(["b.png", "a b/ä.JPG", "a b/c.png", "a b/deep/b.webp"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed=seed).save(root / name)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    picture().save(root / ".hidden" / "x.png")
    picture().save(root / "._b.png")
    return root


def below(root: Path, found: dict[Path, Path]) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): str(place) for path, place in found.items()}


def test_folders_stand_for_all_images_in_them_and_files_for_themselves(folder):
    assert below(folder, find_images([folder])) == {
        name: name for name in ["a b/c.png", "a b/deep/b.webp", "a b/ä.JPG", "b.png"]
    }
    (folder / "image").write_bytes((folder / "b.png").read_bytes())
    given = [folder / "image", str(folder / "a b"), folder / "b.png", folder]
    assert below(folder, find_images(given)) == {
        "image": "image",
        "a b/c.png": "c.png",
        "a b/deep/b.webp": "deep/b.webp",
        "a b/ä.JPG": "ä.JPG",
        "b.png": "b.png",
    }


@pytest.mark.parametrize("name", OF_SYSTEMS)
def test_thumbnails_and_deleted_images_are_not_looked_for(folder, name):
    (folder / "a b" / name / "c.png").mkdir(parents=True)
    picture().save(folder / "a b" / name / "c.png/SYNOPHOTO_THUMB_M.jpg")
    assert len(find_images([folder])) == 4
    assert len(find_images([folder / "a b" / name / "c.png"])) == 1  # what is named is meant


def test_nothing_found_and_what_is_not_there_are_errors(folder, tmp_path):
    with pytest.raises(PredictionError, match=r"there is no .*none.jpg, .*gone \(here is "):
        find_images([folder, tmp_path / "none.jpg", tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictionError, match=r"no image was found in .*empty; expected .*\.jpg"):
        find_images([tmp_path / "empty"])
    with pytest.raises(PredictionError, match="no image was found in nothing"):
        find_images([])


def test_a_folder_that_may_not_be_read_is_an_error(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PredictionError, match=r"cannot be read \(Permission denied\)"):
        find_images([folder])


def test_a_link_to_a_folder_above_is_not_followed_for_ever(folder):
    (folder / "again").symlink_to(folder)
    assert len(find_images([folder])) == 4


def test_linked_folders_are_followed_once_and_a_file_counts_once_however_it_is_written(
    folder, tmp_path, monkeypatch
):
    (tmp_path / "disk/more").mkdir(parents=True)
    picture(seed=9).save(tmp_path / "disk/more/z.png")
    (folder / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/more/again").symlink_to(tmp_path / "disk")
    found = below(folder, find_images([folder]))
    assert found["linked/more/z.png"] == "linked/more/z.png" and len(found) == 5
    monkeypatch.chdir(folder)
    relative = ["b.png", "a b/../b.png", "linked/more/z.png", "a b"]
    absolute = [folder / "b.png", tmp_path / "disk/more/z.png", folder / "a b"]
    given = [*relative, *absolute]
    assert [path.name for path in find_images(given)] == [
        "b.png", "z.png", "c.png", "b.webp", "ä.JPG",
    ]  # fmt: skip


def test_the_output_is_not_looked_into_by_way_of_a_link(folder, tmp_path):
    picture().save(folder / "a b/deep/drawn.png")
    (folder / "link").symlink_to(folder / "a b/deep")
    found = find_images([folder], leave_out=folder / "a b/deep")
    assert sorted(path.name for path in found) == ["b.png", "c.png", "ä.JPG"]


def test_all_is_written_below_the_output(predictor, folder, tmp_path):
    output, seen = tmp_path / "new" / "found", []
    outcome = predict_files(
        predictor, [folder], output, progress=lambda *counts: seen.append(counts)
    )
    written = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    names = ["a b/c", "a b/deep/b", "a b/ä", "b"]
    assert written == [*(f"images/{name}.jpg" for name in names), "predictions.json"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    results = json.loads(outcome.results.read_text(encoding="utf-8"))
    assert outcome.num_images == 4 and outcome.num_detections == len(results) > 0
    assert outcome.unreadable == {} and outcome.drawn == output / "images"
    assert {r["image_id"]: Path(r["file_name"]).name for r in results} == {
        1: "c.png", 2: "b.webp", 3: "ä.JPG", 4: "b.png",
    }  # fmt: skip
    alone = predictor(folder / "b.png").to_coco(4)
    found = [r for r in results if r["image_id"] == 4]
    assert [r["category"] for r in found] == [r["category"] for r in alone]
    for ours, expected in zip(found, alone):
        assert ours["bbox"] == pytest.approx(expected["bbox"], abs=1e-2)
    with Image.open(output / "images" / "b.jpg") as drawn:
        assert drawn.size == (900, 600)


def coco_file(file: Path, names: list[str], classes: list[str]) -> Path:
    """Images of the ids 70, 71, ..., categories of 5, 6, ..."""
    images = [{"id": 70 + index, "file_name": name} for index, name in enumerate(names)]
    categories = [{"id": 5 + index, "name": name} for index, name in enumerate(classes)]
    content = {"images": images, "categories": categories, "annotations": []}
    file.write_text(json.dumps(content))
    return file


def test_results_have_the_ids_of_the_annotations_that_are_given(predictor, folder, tmp_path):
    names = ["b.png", "a b/deep/b.webp", "more.png", "a b/c.png", "ä.JPG"]
    file = coco_file(tmp_path / "val.json", names, ["none", *reversed(CLASSES)])
    outcome = predict_files(predictor, [folder], tmp_path / "o", annotations=file, draw=False)
    results = json.loads(outcome.results.read_text(encoding="utf-8"))
    ids = {each["image_id"]: Path(each["file_name"]).name for each in results}
    assert ids == {70: "b.png", 71: "b.webp", 73: "c.png", 74: "ä.JPG"}
    known = {name: key for key, name in enumerate(["none", *reversed(CLASSES)], start=5)}
    assert {each["category_id"] == known[each["category"]] for each in results} == {True}


def test_annotations_without_an_image_or_a_class_are_refused_before_the_first_image(
    predictor, folder, tmp_path
):
    for names, classes, said in (
        (["b.png"], [*CLASSES], "a b/c.png is not in the annotations: they have b.png"),
        ([], [*CLASSES][1:], f"category='{CLASSES[0]}'"),
    ):
        file = coco_file(tmp_path / "val.json", names, classes)
        with pytest.raises(EvaluationError, match=said):
            predict_files(predictor, [folder], tmp_path / "out", annotations=file)
    assert not (tmp_path / "out").exists()


def test_the_output_of_an_earlier_time_is_not_detected_on(predictor, folder):
    output = folder / "found"
    counts = [
        predict_files(predictor, [folder], output, overwrite=again).num_images
        for again in (False, True)
    ]
    assert counts == [4, 4]


def test_what_is_in_the_output_is_replaced_only_if_that_is_asked_for(predictor, folder, tmp_path):
    output = tmp_path / "found"
    predict_files(predictor, [folder], output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for draw in (True, False):
        with pytest.raises(PredictionError, match="predictions.json is there already, .*overwrite"):
            predict_files(predictor, [folder], output, draw=draw)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    os.remove(folder / "b.png")
    predict_files(predictor, [folder], output, overwrite=True)
    drawn = sorted(path.name for path in (output / "images").rglob("*.jpg"))
    assert drawn == ["b.jpg", "c.jpg", "ä.jpg"]  # none of the image that is gone
    predict_files(predictor, [folder], output, draw=False, overwrite=True)
    assert [path for path in output.rglob("*") if path.is_file()] == [output / "predictions.json"]


def test_pictures_of_others_are_neither_replaced_nor_mixed_with_those_drawn(
    predictor, folder, tmp_path
):
    mine = tmp_path / "data" / "images" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    picture().save(mine)
    before = mine.read_bytes()
    with pytest.raises(PredictionError, match="mine.jpg is there already"):
        predict_files(predictor, [folder], tmp_path / "data")
    with pytest.raises(PredictionError, match="mine.jpg is no picture that dense-kd predict"):
        predict_files(predictor, [folder], tmp_path / "data", overwrite=True)
    for again in (False, True):
        predict_files(predictor, [mine], tmp_path / "data", draw=False, overwrite=again)
    assert mine.read_bytes() == before


def test_pictures_of_an_earlier_time_that_are_detected_on_are_not_removed(
    predictor, folder, tmp_path
):
    predict_files(predictor, [folder], tmp_path / "out")
    drawn = tmp_path / "out" / "images" / "b.jpg"
    with pytest.raises(PredictionError, match="b.jpg"):
        predict_files(predictor, [drawn], tmp_path / "out", draw=False, overwrite=True)
    assert drawn.exists() and (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_what_was_found_before_an_interruption_is_written_and_said_to_be_incomplete(
    reason, predictor, folder, tmp_path, caplog
):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise reason

    (folder / "a b" / "damaged.jpg").write_text("no image")
    with pytest.raises(type(reason)):
        predict_files(predictor, [folder], tmp_path / "out", batch_size=1, progress=stop)
    found = json.loads((tmp_path / "out" / "predictions.incomplete.json").read_text("utf-8"))
    assert {Path(each["file_name"]).name for each in found} == {"c.png", "b.webp"}
    assert "predictions.incomplete.json has what was found in 2 of 5 images" in caplog.text
    assert "damaged.jpg" in (tmp_path / "out" / "unreadable.txt").read_text("utf-8")
    assert not (tmp_path / "out" / "predictions.json").exists()
    with pytest.raises(PredictionError, match="predictions.incomplete.json is there already"):
        predict_files(predictor, [folder], tmp_path / "out")
    predict_files(predictor, [folder], tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "predictions.incomplete.json").exists()


def test_unreadable_images_are_listed_and_the_others_done(predictor, folder, tmp_path):
    (folder / "a b" / "damaged.jpg").write_text("no image")
    for again in (False, True):
        outcome = predict_files(predictor, [folder], tmp_path / "out", draw=False, overwrite=again)
        assert outcome.num_images == 4 and outcome.drawn is None
        assert list(outcome.unreadable) == [str(folder / "a b" / "damaged.jpg")]
        listed = (tmp_path / "out" / "unreadable.txt").read_text(encoding="utf-8")
        assert listed == f"{folder / 'a b' / 'damaged.jpg'}: it is no image that PIL can read\n"
    assert not (tmp_path / "out" / "images").exists()
    os.remove(folder / "a b" / "damaged.jpg")
    predict_files(predictor, [folder], tmp_path / "out", draw=False, overwrite=True)
    assert not (tmp_path / "out" / "unreadable.txt").exists()


def test_images_of_one_name_have_pictures_of_their_own(predictor, folder, tmp_path):
    (folder / "more").mkdir()
    for name in ("b.png", "B.bmp"):
        picture().save(folder / "more" / name)
    given = [folder / "b.png", folder / "more" / "b.png", folder / "more" / "B.bmp"]
    predict_files(predictor, given, tmp_path / "out")
    drawn = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert drawn == ["B_3.jpg", "b.jpg", "b_2.jpg"]


def test_no_image_is_replaced_by_its_picture(predictor, tmp_path):
    image = tmp_path / "images" / "a.jpg"
    image.parent.mkdir()
    picture().save(image)
    before = image.read_bytes()
    with pytest.raises(PredictionError, match="would replace the image of that name"):
        predict_files(predictor, [image], tmp_path)
    assert image.read_bytes() == before and not (tmp_path / "predictions.json").exists()


@pytest.mark.parametrize("output", ["file", "file/below", "closed/new"])
def test_an_output_that_cannot_be_written_to_is_refused_before_the_first_image(
    output, folder, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir()
    make = tempfile.TemporaryFile

    def refuse(dir):
        if Path(dir).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # root may write anywhere
    with pytest.raises(SaveError, match="is a file, expected a folder|Permission denied"):
        predict_files(None, [folder], tmp_path / output)


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode here")
def test_names_that_are_no_unicode_are_in_what_is_written(predictor, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    named, damaged = (photos / os.fsdecode(name) for name in (b"caf\xe9.png", b"\xff.png"))
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(named)
    damaged.write_text("no image")
    outcome = predict_files(predictor, [photos], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert found and {each["file_name"] for each in found} == {str(named)}
    assert list(outcome.unreadable) == [str(damaged)]
    assert "\\udcff.png: it is no image" in (tmp_path / "out" / "unreadable.txt").read_text()
