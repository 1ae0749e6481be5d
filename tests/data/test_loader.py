"""The training loader goes on where a run stopped, and datasets say what is wrong with them."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BoxMode
from detectron2.utils import comm
from PIL import Image

from dense_kd.data import DatasetError, TrainLoader, detection_dataset, register_annotations
from dense_kd.data.named_errors import NamedErrors
from dense_kd.random_state import kept_random_state
from helpers.checked_runs import unregister


def loader(
    seed: int | None = 3, size: int = 10, widths=(100,), batch: int = 4, mapper=dict, **options
) -> TrainLoader:
    dataset = [{"id": i, "height": 80, "width": widths[i % len(widths)]} for i in range(size)]
    return TrainLoader(dataset, mapper=mapper, total_batch_size=batch, seed=seed, **options)


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
    assert {"seed": 3, "num_images": 48, "dataset_size": 10}.items() <= again.state_dict().items()


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
            monkeypatch.setattr(comm, "get_world_size", lambda: world)
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


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_with_two_aspect_ratios_batches_are_detectron2s_also_after_restoring(stop, batch):
    sizes = {"size": 23, "widths": (60, 100, 100), "batch": batch}
    order = itertools.islice(TrainingSampler(23, seed=3), 200)
    images = ({"id": i, "height": 80, "width": (60, 100, 100)[i % 3]} for i in order)
    expected = take(AspectRatioGroupedDataset(images, batch), 20)
    first = loader(**sizes)
    before = take(first, stop)
    again = loader(**sizes, seed=None)
    again.load_state_dict(first.state_dict())
    assert before + take(again, 8) == expected[: stop + 8]
    third = loader(**sizes, seed=None)
    third.load_state_dict(again.state_dict())
    assert take(third, 3) == expected[stop + 8 : stop + 11]


@pytest.mark.parametrize("again", [2, 6, "not grouped"])
def test_images_that_waited_for_others_of_their_aspect_ratio_come_first_in_other_batches(
    again, caplog
):
    sizes = {"size": 31, "widths": (60, 100, 100, 100)}
    first = loader(**sizes, batch=4)
    before = take(first, 5)
    grouped = again != "not grouped"
    second = loader(**sizes, batch=again if grouped else 4, aspect_ratio_grouping=grouped)
    second.load_state_dict(first.state_dict())
    after = take(second, 12)
    assert "not bit for bit" in caplog.text
    order = [*itertools.islice(TrainingSampler(31, seed=3), 200)]
    taken = sum(before + after, [])
    assert not Counter(taken) - Counter(order[: len(taken) + 12])  # 6 of each group may wait
    assert len([*(Counter(order[: len(taken)]) - Counter(taken)).elements()]) <= 12
    third = loader(**sizes, batch=again if grouped else 4, aspect_ratio_grouping=grouped)
    third.load_state_dict(second.state_dict())
    fourth = loader(**sizes, batch=again if grouped else 4, aspect_ratio_grouping=grouped)
    fourth.load_state_dict(first.state_dict())
    assert take(third, 3) == take(fourth, 15)[12:]


def drawing(image: dict) -> dict:
    return {**image, "drawn": [random.random(), np.random.rand(), torch.rand(()).item()]}


def drawn(batches, count: int) -> list[tuple[int, list[float]]]:
    taken = itertools.chain.from_iterable(itertools.islice(batches, count))
    return [(image["id"], image["drawn"]) for image in taken]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_mapper_draws_depends_on_seed_and_visit_alone(workers):
    """Not on workers, on where the process is, or on what it has drawn; which goes on as before."""
    options = {"size": 5, "widths": (60, 100), "batch": 2, "mapper": drawing}
    whole = drawn(loader(**options), 12)
    assert len({tuple(numbers) for _, numbers in whole}) == len(whole)
    assert len({number for _, numbers in whole for number in numbers}) == 3 * len(whole)
    assert drawn(loader(**options, seed=4), 12) != whole

    def next_of_process() -> list[float]:
        return drawing({})["drawn"]

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    with kept_random_state():
        expected = next_of_process()
    first = loader(**options, num_workers=workers)
    before = drawn(first, 5)
    assert next_of_process() == expected
    again = loader(**options, num_workers=2 - workers, seed=None)
    again.load_state_dict(first.state_dict())
    assert before + drawn(again, 7) == whole


def test_processes_draw_for_an_image_what_one_process_would(monkeypatch):
    options = {"size": 9, "mapper": drawing, "batch": 4}
    alone = drawn(loader(**options), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        ranks += drawn(loader(**options), 4)
    assert sorted(ranks) == sorted(alone)


def test_a_run_of_version_0_1_goes_on_drawing_from_the_generators_of_the_process():
    state = {"seed": 3, "num_images": 4, "dataset_size": 10}
    again = loader(mapper=drawing, batch=1, seed=None)
    again.load_state_dict(state)
    np.random.seed(5)
    found = [numbers[1] for _, numbers in drawn(again, 3)]
    third = loader(mapper=drawing, batch=1)
    third.load_state_dict(again.state_dict())
    found += [numbers[1] for _, numbers in drawn(third, 2)]
    assert found == np.random.RandomState(5).rand(5).tolist()


@pytest.mark.parametrize("stop", [1, 6])
def test_for_an_image_that_a_mapper_leaves_out_another_of_its_aspect_ratio_comes(stop):
    def mapper(image: dict) -> dict | None:
        return drawing(image) if image["id"] % 5 else None

    options = {"size": 20, "widths": (60, 100), "batch": 3, "mapper": mapper}
    first = loader(**options)
    whole, before = drawn(loader(**options), 12), drawn(first, stop)
    again = loader(**options)
    again.load_state_dict(first.state_dict())
    assert before + drawn(again, 12 - stop) == whole
    for batch in take(loader(**options), 12):
        assert len({i % 2 for i in batch}) == 1 and all(i % 5 for i in batch)


def test_a_mapper_that_leaves_out_all_images_ends_with_its_name():
    with pytest.raises(DatasetError, match="dataloader.train.mapper. gave None for 100 images"):
        take(loader(mapper=lambda image: None), 1)


def test_the_size_of_an_image_comes_from_its_file_where_the_dataset_does_not_tell_it(tmp_path):
    for i, size in enumerate([(8, 4), (4, 8)] * 4):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    dataset = [{"id": i, "file_name": str(tmp_path / f"{i}.png")} for i in range(8)]
    for batch in take(TrainLoader(dataset, mapper=dict, total_batch_size=2, seed=1), 8):
        assert len({i % 2 for i in batch}) == 1
    with pytest.raises(DatasetError, match="None, which does not exist.*aspect_ratio_grouping"):
        TrainLoader([{"id": 0}], mapper=dict, total_batch_size=1)


@pytest.mark.parametrize(
    "size, batch, message",
    [(0, 1, "dataset is empty"), (3, 0, "total_batch_size=0"), (3, 3, "total_batch_size=3.*the 2")],
)
def test_what_cannot_be_divided_is_refused(size, batch, message, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=message):
        loader(size=size, batch=batch)


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


def test_a_dataset_that_cannot_be_read_is_named_with_its_file(tmp_path):
    file = tmp_path / "broken.json"
    file.write_text('{"categories": [{"id": 1, "name": "a"}], "images": [{}], "annotations": []}')
    register_annotations("broken", file, tmp_path)
    try:
        with pytest.raises(DatasetError, match="'broken' .*broken.json.* cannot be read: KeyError"):
            detection_dataset("broken")
    finally:
        unregister("broken")


def test_an_image_that_cannot_be_decoded_ends_a_run_with_its_name(tmp_path):
    file = tmp_path / "cut.png"
    Image.effect_noise((40, 30), 50).save(file)
    file.write_bytes(file.read_bytes()[:60] + file.read_bytes()[-12:])  # whole at both ends
    records = [{"file_name": str(file), "height": 30, "width": 40, "annotations": []}]
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    for workers in (0, 1):
        images = TrainLoader(records, mapper=mapper, total_batch_size=1, num_workers=workers)
        with pytest.raises(DatasetError, match=f"{file} cannot be used: OSError"):
            next(iter(images))


def test_errors_that_say_what_is_wrong_stay_as_they_are():
    def refuse(record):
        raise DatasetError("this one")

    with pytest.raises(DatasetError, match="^this one$"):
        NamedErrors(refuse)({"file_name": "a.png"})


def test_an_image_that_an_evaluation_would_pass_over_ends_it_with_its_name():
    mapper = NamedErrors(lambda record: record if record["image_id"] else None, every_image=True)
    assert mapper({"image_id": 1}) == {"image_id": 1}
    with pytest.raises(DatasetError, match="None for a.png; expected a dict of every image"):
        mapper({"image_id": 0, "file_name": "a.png"})
