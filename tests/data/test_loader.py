"""The training loader goes on where a run stopped, and datasets say what is wrong with them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import build as detectron2_build
from detectron2.structures import BoxMode
from detectron2.utils import comm

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
    assert again.state_dict() == {"seed": 3, "num_images": 48, "dataset_size": 10}


@pytest.mark.parametrize("size, again", [(2, 5), (2, 1), (5, 2), (4, 3)])
def test_with_batches_of_another_size_no_image_is_left_out_or_taken_twice(size, again):
    order = sum(take(loader(batch=1), 60), [])
    first = loader(batch=size)
    before = sum(take(first, 6), [])
    second = loader(batch=again)
    second.load_state_dict(first.state_dict())
    after = sum(take(second, 5), [])
    assert before + after == order[: len(before) + len(after)]


@pytest.mark.parametrize("processes, again", [(1, 2), (2, 1), (2, 3)])
def test_in_another_number_of_processes_no_image_is_left_out_or_taken_twice(
    processes, again, monkeypatch
):
    def together(world: int, batches: int, state=None) -> tuple[list[int], dict]:
        """The images of all processes, in batches of six."""
        taken, states = [], []
        for rank in range(world):
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            for module in (comm, detectron2_build):
                monkeypatch.setattr(module, "get_world_size", lambda: world)
            one = loader(size=31, batch=6)
            if state is not None:
                one.load_state_dict(state)
            taken += sum(take(one, batches), [])
            states.append(one.state_dict())
        assert all(state == states[0] for state in states)
        return taken, states[0]

    order = sum(take(loader(size=31, batch=1), 54), [])
    before, state = together(processes, 4)
    after, _ = together(again, 5, state)
    assert sorted(before) == sorted(order[:24])
    assert Counter(after) == Counter(order[24:])


def test_a_place_that_was_counted_in_batches_is_resumed_and_what_is_assumed_is_said(caplog):
    whole = take(loader(), 6)
    again = loader(seed=None)
    again.load_state_dict({"seed": 3, "num_batches": 2})
    assert take(again, 4) == whole[2:]
    assert "counts 2 batches" in caplog.text and "each had 4" in caplog.text


def test_what_a_restored_loader_cannot_keep_is_said(caplog):
    state = loader().state_dict()
    loader(seed=None).load_state_dict(state)
    assert not caplog.text
    loader(seed=4, size=11).load_state_dict(state)
    assert "of seed 3; seed=4" in caplog.text
    assert "had 10 images" in caplog.text and "now 11" in caplog.text


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
