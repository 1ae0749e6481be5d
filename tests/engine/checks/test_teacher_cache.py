"""A teacher's cache is refused before the first batch where images do not come again."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.engine import RunError
from dense_kd.engine.checks import teacher_cache
from dense_kd.engine.checks.teacher_cache import padding_problems
from dense_kd.engine.loaders import load_training
from helpers.checked_runs import load, problems, unregister

CONFIG = "quickstart/distill.py"
MAPPER = "dataloader.train.mapper"
FIRST = f"{MAPPER}.augmentations.0"
T = "detectron2.data.transforms"
EDGE = f"{T}.ResizeShortestEdge"
TARGET = {"target_height": 64, "target_width": 64}


def found(*overrides: str, cache: str = "memory") -> list[str]:
    """What is wrong with the cache of a run."""
    given = [f"model.teacher.cache={cache}", "train.device=cpu", *overrides]
    cfg = load(*given, config=CONFIG)
    return [*teacher_cache.problems(cfg)]


def augmented(name: str, **options) -> list[str]:
    listed = "".join(f",{key}:{value}" for key, value in options.items())
    return [f"{MAPPER}.augmentations=[{{_target_:{name}{listed}}}]"]


ALLOWED = {
    "flips": [],
    "nothing": [f"{MAPPER}.augmentations=[]"],
    "a vertical flip": augmented(f"{T}.RandomFlip", horizontal="false", vertical="true"),
    "one size": augmented(f"{T}.Resize", shape="[64,64]"),
    "one edge": augmented(
        f"{T}.ResizeShortestEdge", short_edge_length="[64]", sample_style="choice"
    ),
    "an edge": augmented(EDGE, short_edge_length="64"),
    "a range of one": augmented(EDGE, short_edge_length="[64,64]"),
    "one scale": augmented(f"{T}.ResizeScale", min_scale=1.0, max_scale=1.0, **TARGET),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_flips_and_a_resizing_to_one_size_are_served(what):
    assert found(*ALLOWED[what]) == []


@pytest.mark.parametrize("augmentation", [(EDGE, "[64,96]"), (f"{T}.RandomBrightness", None)])
def test_by_batch_anything_may_be_made_of_an_image(augmentation, tmp_path):
    name, edges = augmentation
    options = {"short_edge_length": edges} if edges else {"intensity_min": 0.5, "intensity_max": 2}
    given = augmented(name, **options)
    by_batch = "model.teacher.cache_by=batch"
    assert found(*given, cache=str(tmp_path)) and not found(*given, by_batch, cache=str(tmp_path))
    (tmp_path / "file").touch()
    (problem,) = found(*given, by_batch, cache=str(tmp_path / "file"))
    assert "is a file, expected a folder" in problem


REFUSED = {
    "edges": (
        augmented(EDGE, short_edge_length="[64,96]"),
        "augmentations.0 resizes to one of several sizes (ResizeShortestEdge)",
    ),
    "scales": (
        augmented(f"{T}.ResizeScale", min_scale=0.1, max_scale=2.0, **TARGET),
        "resizes to one of several sizes (ResizeScale)",
    ),
    "crop": (
        augmented(f"{T}.RandomCrop", crop_type="relative", crop_size="[0.5,0.5]"),
        "changes the image at random (RandomCrop)",
    ),
    "colour": (
        augmented(f"{T}.RandomBrightness", intensity_min=0.5, intensity_max=1.5),
        "changes the image at random (RandomBrightness)",
    ),
    "rotation": (
        augmented(f"{T}.RandomRotation", angle="[-10,10]"),
        "changes the image at random (RandomRotation)",
    ),
    "unknown": (
        augmented("torch.nn.Identity"),
        "is Identity, of which it is not known whether it changes the image at random",
    ),
    "mapper": ([f"{MAPPER}={{_target_:torch.nn.Identity}}"], "of dataloader.train.mapper=Identity"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_changes_the_image_at_random_is_refused_with_what_to_do(what):
    overrides, said = REFUSED[what]
    (problem,) = found(*overrides)
    assert problem.startswith("model.teacher.cache=memory: ") and said in problem
    assert "leave out the cache (model.teacher.cache=null)" in problem


def test_without_a_cache_nothing_of_it_is_refused():
    assert found(*REFUSED["crop"][0], cache="null") == []


def test_the_pass_over_a_run_says_it_with_all_else():
    given = ["model.teacher.cache=memory", "train.device=cpu", "train.max_iter=0"]
    text = "\n".join(problems(*given, *REFUSED["colour"][0], config=CONFIG))
    assert "train.max_iter=0" in text and "changes the image at random" in text


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (problem,) = found(cache=str(tmp_path / "file"))
    assert "is a file, expected a folder" in problem


def check(sizes, batch, multiple=32, **options) -> list[str]:
    return [*padding_problems("cache=x", sizes, sizes, batch, multiple, **options)]


def test_images_of_unlike_sizes_are_refused_in_batches_and_served_one_by_one():
    draw = np.random.RandomState(0)
    unlike = [tuple(map(int, draw.randint(200, 640, 2))) for _ in range(300)]
    (problem,) = check(unlike, 8)
    assert "in batches of 8" in problem and "total_batch_size" in problem and "T.Resize" in problem
    assert check(unlike, 1) == check(unlike, 8, multiple=0) == []


def test_images_of_one_size_and_of_one_padding_are_served_in_batches():
    assert check([(240, 320)] * 50, 8) == []
    assert check([(225 + i % 30, 320) for i in range(50)], 8) == []  # all padded to 256
    assert check([(240, 320), (320, 240)] * 50, 8) == []


def test_sizes_that_are_not_known_are_refused_in_batches_only():
    (problem,) = check([(240, 320), None], 2)
    assert "does not say the sizes of all images" in problem
    assert check([None], 1) == []


def test_sizes_are_those_after_resizing_and_no_random_number_is_drawn():
    augmentations = load(*ALLOWED["one edge"], config=CONFIG).dataloader.train.mapper.augmentations
    before = np.random.get_state()[2]
    sizes = [(480, 640), None, (640, 480), (480, 640)]
    assert teacher_cache.resized(sizes, augmentations) == [(64, 85), None, (85, 64), (64, 85)]
    assert teacher_cache.resized(sizes, []) == sizes
    assert np.random.get_state()[2] == before


def test_loaded_images_are_asked_for_their_sizes():
    register_unlike()
    overrides = [
        "model.teacher.cache=memory",
        "dataloader.train.dataset.names=unlike_train",
        *ALLOWED["one edge"],
    ]
    try:
        with pytest.raises(RunError, match="images of .* sizes come in batches of 4"):
            load_training(load(*overrides, "dataloader.train.total_batch_size=4", config=CONFIG))
        load_training(load(*overrides, "dataloader.train.total_batch_size=1", config=CONFIG))
        fixed = [*overrides[:2], *ALLOWED["one size"], "dataloader.train.total_batch_size=4"]
        load_training(load(*fixed, config=CONFIG))
    finally:
        unregister("unlike_train")


def register_unlike() -> None:
    """The images of another dataset, as if they had other sizes."""
    images = DatasetCatalog.get("checked_train")
    many = [
        {**images[i % len(images)], "height": 64 + 40 * (i % 7), "width": 64 + 40 * (i % 5)}
        for i in range(70)
    ]
    DatasetCatalog.register("unlike_train", lambda: many)
    classes = MetadataCatalog.get("checked_train").thing_classes
    MetadataCatalog.get("unlike_train").set(thing_classes=classes)
