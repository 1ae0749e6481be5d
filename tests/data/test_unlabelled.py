"""Images without labels: which there are, in which order, and how they get into batches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from detectron2.data import DatasetMapper
from PIL import Image

from dense_kd.data import (
    DatasetError,
    TrainLoader,
    UnlabelledLoader,
    WithUnlabelled,
    generate_shapes,
    labelled_part,
    register_shapes,
    rest_of_images,
    unlabelled_images,
)
from helpers.checked_runs import unregister


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    generate_shapes(root, "train", 20, image_size=(32, 48))
    register_shapes("parts_train", root, "train")
    yield root
    unregister("parts_train")


def loaders(
    seed: int = 3, labelled: int = 2, unlabelled: int = 4, **options: Any
) -> WithUnlabelled:
    def images(first: int, count: int) -> list[dict[str, Any]]:
        return [{"id": first + i, "annotations": [], "height": 8, "width": 9} for i in range(count)]

    return WithUnlabelled(
        TrainLoader(images(0, 5), mapper=dict, total_batch_size=labelled, seed=seed),
        UnlabelledLoader(
            images(100, 7), mapper=dict, total_batch_size=unlabelled, seed=seed + 1, **options
        ),
    )


def ids(batches: list[list[dict[str, Any]]]) -> list[list[int]]:
    return [[image["id"] for image in batch] for batch in batches]


def take(loader: Any, count: int) -> list[list[dict[str, Any]]]:
    return [*itertools.islice(loader, count)]


@pytest.mark.parametrize("labelled, unlabelled", [(2, 4), (3, 1)])
def test_each_batch_holds_as_many_of_both_as_asked_for_each_in_the_order_of_its_seed(
    labelled, unlabelled
):
    both = loaders(labelled=labelled, unlabelled=unlabelled)
    found = take(both, 6)
    again = loaders(labelled=labelled, unlabelled=unlabelled)
    first, second = take(again.labelled, 6), take(again.unlabelled, 6)
    assert ids(found) == ids([a + b for a, b in zip(first, second)])
    for batch in found:
        assert [image.get("unlabelled", False) for image in batch] == (
            [False] * labelled + [True] * unlabelled
        )
    assert ids(take(loaders(seed=5, labelled=labelled, unlabelled=unlabelled), 6)) != ids(found)


def test_labels_are_neither_seen_by_the_mapper_nor_given_to_the_model():
    seen = []

    def mapper(record: dict[str, Any]) -> dict[str, Any]:
        seen.append({*record})
        return {**record, "instances": "of a mapper that makes some anyway"}

    images = [{"file_name": "a", "annotations": [1], "height": 1, "width": 1}]
    (batch,) = take(UnlabelledLoader(images, mapper=mapper, total_batch_size=1), 1)
    assert batch == [{"file_name": "a", "height": 1, "width": 1, "unlabelled": True}]
    assert seen == [{"file_name", "height", "width"}]


@pytest.mark.parametrize("stop", [1, 4])
def test_a_restored_pair_of_loaders_gives_the_batches_that_come_next(stop):
    whole = ids(take(loaders(), 9))
    first, again = loaders(), loaders(seed=77)
    before = ids(take(first, stop))
    again.load_state_dict(first.state_dict())
    assert before + ids(take(again, 9 - stop)) == whole


def test_of_a_run_without_unlabelled_images_the_labelled_ones_go_on_and_that_is_said(caplog):
    first, again = loaders(), loaders()
    whole = ids(take(loaders().labelled, 6))
    take(first.labelled, 2)
    again.load_state_dict(first.labelled.state_dict())
    assert "their order begins anew" in caplog.text
    assert [batch[:2] for batch in ids(take(again, 4))] == whole[2:]
    labelled = loaders().labelled
    labelled.load_state_dict(loaders().state_dict())  # and the other way round


def test_images_of_a_folder_come_by_their_paths_and_those_that_are_none_are_said(tmp_path, caplog):
    for name in ("b/2.png", "b/1.jpg", "a.bmp", ".hidden/x.png", "@eaDir/a.bmp/M.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7, 5)).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    (tmp_path / "labels.txt").write_text("1 2 3 4")
    found = unlabelled_images(tmp_path)
    names = [str(tmp_path / name) for name in ("a.bmp", "b/1.jpg", "b/2.png")]
    assert [image["file_name"] for image in found] == names
    assert [image["image_id"] for image in found] == [1, 2, 3]
    assert all((image["height"], image["width"]) == (5, 7) for image in found)
    assert "c.png is no image" in caplog.text
    with pytest.raises(DatasetError, match="is no folder; expected one with images"):
        unlabelled_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="has no image that can be read"):
        unlabelled_images(tmp_path / "empty")


def test_detectron2s_mapper_reads_them(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "a.png")
    for training in (True, False):
        mapper = DatasetMapper(training, augmentations=[], image_format="BGR")
        loader = UnlabelledLoader(unlabelled_images(tmp_path), mapper=mapper, total_batch_size=1)
        ((image,),) = take(loader, 1)
        assert image["image"].shape == (3, 5, 7) and "instances" not in image


def test_a_share_keeps_its_labels_and_the_rest_has_none(shapes):
    def names(images: list[dict[str, Any]]) -> list[str]:
        return sorted(image["file_name"].rsplit("/", 1)[1] for image in images)

    tenth, quarter = (labelled_part("parts_train", share=share, seed=1) for share in (0.1, 0.25))
    rest = rest_of_images("parts_train", share=0.1, seed=1)
    assert (len(tenth), len(quarter), len(rest)) == (2, 5, 18)
    assert set(names(tenth)) < set(names(quarter))
    assert len({*names(tenth), *names(rest)}) == 20
    assert all("annotations" in image for image in tenth)
    assert not any("annotations" in image for image in rest)
    # What is drawn is part of what a config says; it must not change.
    assert names(tenth) == ["000005.png", "000011.png"]
    assert names(labelled_part("parts_train", share=0.1, seed=2)) != names(tenth)
    with pytest.raises(ValueError, match="share=1: expected a number between 0 and 1"):
        labelled_part("parts_train", share=1)


def test_loaders_of_other_kinds_are_refused():
    both = loaders()
    with pytest.raises(TypeError, match=r"dataloader.train is a list; .*dense_kd.data.TrainLoad"):
        WithUnlabelled([], both.unlabelled)
    with pytest.raises(TypeError, match=r"dataloader.unlabelled is a TrainLoader; .*Unlabelled"):
        WithUnlabelled(both.labelled, both.labelled)
