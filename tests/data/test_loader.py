"""The training loader goes on where a run stopped, and datasets say what is wrong with them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from dense_kd.data import DatasetError, TrainLoader, detection_dataset


def loader(seed: int | None = 3, size: int = 10, widths=(100,), batch: int = 4) -> TrainLoader:
    dataset = [{"id": i, "height": 80, "width": widths[i % len(widths)]} for i in range(size)]
    return TrainLoader(dataset, mapper=dict, total_batch_size=batch, seed=seed)


def take(batches, count: int) -> list[list[int]]:
    return [[image["id"] for image in batch] for batch in itertools.islice(batches, count)]


def test_an_epoch_holds_every_image_once():
    seen = Counter(sum(take(loader(), 5), []))
    assert seen == {i: 2 for i in range(10)}


@pytest.mark.parametrize("stop", [1, 2, 7])
def test_a_restored_loader_gives_the_batches_that_come_next(stop):
    whole = take(loader(), 12)
    first = loader(seed=None)
    first.sampler.seed = 3
    before = take(first, stop)
    again = loader(seed=99)
    again.load_state_dict(first.state_dict())
    assert before + take(again, 12 - stop) == whole
    assert again.state_dict() == {"seed": 3, "num_batches": 12}


def test_with_two_aspect_ratios_batches_stay_apart_after_restoring():
    first = loader(widths=(60, 100))
    take(first, 3)
    again = loader(widths=(60, 100))
    again.load_state_dict(first.state_dict())
    for batch in take(again, 6):
        assert len({i % 2 for i in batch}) == 1


@pytest.fixture
def registered():
    """A function that registers images them under a name, with the objects of each."""
    names = []

    def register(name: str, *objects: list[dict]) -> str:
        images = [
            {"file_name": f"{i}.png", "height": 9, "width": 9, "annotations": list(of_image)}
            for i, of_image in enumerate(objects)
        ]
        DatasetCatalog.register(name, lambda: images)
        MetadataCatalog.get(name).set(thing_classes=["a"], json_file=f"{name}.json")
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


OBJECT = {"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
CROWD = {**OBJECT, "iscrowd": 1}


def test_images_without_objects_are_kept_only_if_asked_for(registered):
    name = registered("kd_test_some", [OBJECT], [], [CROWD])
    assert [x["file_name"] for x in detection_dataset(name)] == ["0.png"]
    assert len(detection_dataset([name], filter_empty=False)) == 3


@pytest.mark.parametrize("objects", [[[], []], [[CROWD], []]])
def test_each_dataset_needs_an_object(registered, objects):
    good, bad = registered("kd_test_good", [OBJECT]), registered("kd_test_bad", *objects)
    with pytest.raises(DatasetError, match="'kd_test_bad' .kd_test_bad.json. has 2 images and no"):
        detection_dataset([good, bad])
