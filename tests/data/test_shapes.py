from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools.coco import COCO

from dense_kd.data import shapes, shapes_drawing
from dense_kd.data.shapes import CLASSES, generate_shapes, register_shapes
from helpers.script_runs import run_in_fork

TOOL = Path(__file__).parents[2] / "tools" / "make_shapes.py"


def read(path):
    return json.loads(Path(path).read_text())


def image_bytes(root, split):
    return {p.name: p.read_bytes() for p in sorted((Path(root) / split).glob("*.png"))}


def refuse_to_draw(*args):
    raise AssertionError("an image was drawn")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Root of a split `val` of 300 images."""
    root = tmp_path_factory.mktemp("shapes")
    generate_shapes(root, "val", 300, image_size=(64, 80))
    return root


@pytest.fixture
def annotations(dataset):
    return read(dataset / "annotations" / "instances_val.json")["annotations"]


@pytest.fixture
def register():
    """`register_shapes` undone after the test."""
    names = []

    def call(name, root, split):
        register_shapes(name, root, split)
        names.append(name)
        return name

    yield call
    for name in set(names):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_the_same_settings_give_the_same_files(tmp_path):
    first = generate_shapes(tmp_path / "a", "train", 6, image_size=(48, 64))
    second = generate_shapes(tmp_path / "b", "train", 6, image_size=(48, 64))
    assert read(first) == read(second)
    assert image_bytes(tmp_path / "a", "train") == image_bytes(tmp_path / "b", "train")


def test_worker_processes_draw_the_same_files(tmp_path):
    first = generate_shapes(tmp_path / "a", "train", 6, image_size=(48, 64))
    second = generate_shapes(tmp_path / "b", "train", 6, image_size=(48, 64), num_workers=2)
    assert read(first) == read(second)
    assert image_bytes(tmp_path / "a", "train") == image_bytes(tmp_path / "b", "train")


def test_a_larger_dataset_begins_with_the_smaller_one(tmp_path):
    small = read(generate_shapes(tmp_path / "a", "train", 4, image_size=(48, 64)))
    large = read(generate_shapes(tmp_path / "b", "train", 8, image_size=(48, 64)))
    assert large["images"][:4] == small["images"]
    assert large["annotations"][: len(small["annotations"])] == small["annotations"]
    images = image_bytes(tmp_path / "b", "train")
    assert len(images) == 8
    assert images.items() >= image_bytes(tmp_path / "a", "train").items()


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": "tune"}])
def test_another_seed_or_split_gives_other_images(tmp_path, other):
    base = {"split": "train", "num_images": 4, "image_size": (48, 64)}
    changed = {**base, **other}
    generate_shapes(tmp_path / "a", **base)
    generate_shapes(tmp_path / "b", **changed)
    first = image_bytes(tmp_path / "a", base["split"]).values()
    second = image_bytes(tmp_path / "b", changed["split"]).values()
    assert not set(first) & set(second)


@pytest.mark.slow
def test_boxes_are_inside_the_image_and_hold_their_area(dataset, annotations):
    coco = read(dataset / "annotations" / "instances_val.json")
    assert all((i["height"], i["width"]) == (64, 80) for i in coco["images"])
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        assert x >= 0 and y >= 0 and w >= 1 and h >= 1
        assert x + w <= 80 and y + h <= 64
        assert 0 < annotation["area"] <= w * h


def test_boxes_are_tight_and_all_drawn_objects_are_visible_and_annotated(monkeypatch):
    draw_object = shapes_drawing._draw_object
    changes = []

    def recorded(rng, canvas, *args):
        before = canvas.copy()
        drawn = draw_object(rng, canvas, *args)
        changes.append(((canvas != before).any(axis=2), drawn))
        return drawn

    monkeypatch.setattr(shapes_drawing, "_draw_object", recorded)
    for index in range(60):
        changes.clear()
        _, objects = shapes_drawing.draw_image(np.random.default_rng(index), 96, 96)
        assert [drawn for _, drawn in changes if drawn is not None] == objects
        top = np.full((96, 96), -1)
        for number, (changed, drawn) in enumerate(changes):
            top[changed] = number
            if drawn is None:
                assert not changed.any()
                continue
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            x, y, w, h = drawn.box
            # The anti-aliased rim and the ends of sharp tips are outside the mask.
            slack = [x - columns[0], y - rows[0], columns[-1] - x - w + 1, rows[-1] - y - h + 1]
            assert min(slack) >= 0 and max(slack) <= 3
        for number, (changed, drawn) in enumerate(changes):
            if drawn is not None:
                assert (top == number).sum() >= 0.25 * changed.sum()


def test_an_object_that_would_hide_another_one_is_refused():
    occlusion = shapes_drawing._Occlusion(20, 20)
    window = (slice(0, 20), slice(0, 20))
    below, most, half = (np.zeros((20, 20), dtype=bool) for _ in range(3))
    below[:, :10], most[:, :8], half[:, :5] = True, True, True
    assert occlusion.add(window, below, 200)
    assert not occlusion.add(window, most, 160)
    assert occlusion.add(window, half, 100)
    assert not occlusion.add(window, most & ~half, 60)


def test_class_frequencies_are_long_tailed(annotations):
    counts = Counter(a["category_id"] for a in annotations)
    frequencies = [counts[i] / len(annotations) for i in range(1, len(CLASSES) + 1)]
    assert frequencies == sorted(frequencies, reverse=True)
    assert frequencies[0] > 3 * frequencies[-1] > 0.15


def test_a_few_images_have_no_object(annotations):
    assert 285 <= len({a["image_id"] for a in annotations}) < 300


def test_images_hold_up_to_max_objects(tmp_path, annotations):
    assert max(Counter(a["image_id"] for a in annotations).values()) == 5
    few = read(generate_shapes(tmp_path, "few", 20, image_size=(48, 48), max_objects=2))
    assert max(Counter(a["image_id"] for a in few["annotations"]).values()) == 2


def test_large_images_have_objects_of_all_coco_sizes(tmp_path):
    coco = read(generate_shapes(tmp_path, "val", 40, image_size=(256, 256)))
    areas = np.array([a["area"] for a in coco["annotations"]])
    shares = np.histogram(areas, [0, 32**2, 96**2, 256**2])[0] / len(areas)
    assert shares.min() > 0.05


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    first = generate_shapes(tmp_path, "val", 5, image_size=(48, 48))
    monkeypatch.setattr(shapes, "draw_image", refuse_to_draw)
    assert generate_shapes(tmp_path, "val", 5, image_size=(48, 48)) == first


def test_other_settings_in_the_same_place_replace_the_dataset_and_say_so(tmp_path, caplog):
    generate_shapes(tmp_path / "a", "val", 5, image_size=(48, 48))
    assert not caplog.records
    replaced = generate_shapes(tmp_path / "a", "val", 3, image_size=(48, 48), seed=1)
    fresh = generate_shapes(tmp_path / "b", "val", 3, image_size=(48, 48), seed=1)
    assert read(replaced) == read(fresh)
    assert image_bytes(tmp_path / "a", "val") == image_bytes(tmp_path / "b", "val")
    assert "anew, with other settings: num_images 5 -> 3, seed 0 -> 1" in caplog.text


def test_a_lost_image_is_made_again(tmp_path):
    generate_shapes(tmp_path, "val", 3, image_size=(48, 48))
    images = image_bytes(tmp_path, "val")
    os.remove(tmp_path / "val" / "000001.png")
    generate_shapes(tmp_path, "val", 3, image_size=(48, 48))
    assert image_bytes(tmp_path, "val") == images


@pytest.mark.parametrize("earlier", [None, 1], ids=["fresh", "replacing"])
def test_a_killed_run_leaves_no_json_and_the_next_one_recovers(tmp_path, monkeypatch, earlier):
    if earlier is not None:
        generate_shapes(tmp_path / "a", "val", 6, image_size=(48, 48), seed=earlier)
    draw_image = shapes.draw_image
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_image(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", killed)
        with pytest.raises(KeyboardInterrupt):
            generate_shapes(tmp_path / "a", "val", 6, image_size=(48, 48))
    assert list((tmp_path / "a" / "annotations").iterdir()) == []

    recovered = generate_shapes(tmp_path / "a", "val", 6, image_size=(48, 48))
    clean = generate_shapes(tmp_path / "b", "val", 6, image_size=(48, 48))
    assert read(recovered) == read(clean)
    assert image_bytes(tmp_path / "a", "val") == image_bytes(tmp_path / "b", "val")


def test_the_json_of_another_program_is_not_overwritten(tmp_path):
    foreign = tmp_path / "annotations" / "instances_val.json"
    foreign.parent.mkdir()
    foreign.write_text('{"info": {}, "images": []}')
    with pytest.raises(ValueError, match="not written by generate_shapes"):
        generate_shapes(tmp_path, "val", 1)
    assert foreign.read_text() == '{"info": {}, "images": []}'


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "../val"},
        {"split": ""},
        {"num_images": 0},
        {"num_images": -3},
        {"num_images": 2.5},
        {"image_size": 128},
        {"image_size": (31, 64)},
        {"image_size": (64, 64, 3)},
        {"seed": -1},
        {"max_objects": 0},
        {"num_workers": -1},
    ],
    ids=str,
)
def test_bad_arguments_are_named_and_nothing_is_written(tmp_path, wrong):
    arguments = {"split": "val", "num_images": 1, **wrong}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected"):
        generate_shapes(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_pycocotools_and_detectron2_read_the_dataset(dataset, register):
    coco = COCO(str(dataset / "annotations" / "instances_val.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.getCatIds() == [1, 2, 3, 4, 5]
    assert coco.getAnnIds() == list(range(1, len(coco.anns) + 1))

    name = register("test_shapes_read", dataset, "val")
    records = DatasetCatalog.get(name)
    assert MetadataCatalog.get(name).thing_classes == list(CLASSES)
    mapper = DatasetMapper(
        is_train=True, augmentations=[T.ResizeShortestEdge(64, 80)], image_format="BGR"
    )
    for record in records[:20]:
        inputs = mapper({**record})
        assert inputs["image"].shape == (3, 64, 80)
        # The mapper removes degenerate boxes; there are none.
        assert len(inputs["instances"]) == len(record["annotations"])


def test_perfect_detections_have_full_average_precision(dataset, register, tmp_path):
    name = register("test_shapes_perfect", dataset, "val")
    evaluator = COCOEvaluator(
        name, tasks=("bbox",), distributed=False, output_dir=str(tmp_path), use_fast_impl=False
    )
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        annotations = record["annotations"]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.ones(len(boxes))
        instances.pred_classes = torch.tensor([a["category_id"] for a in annotations])
        evaluator.process([record], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_builtin_names_are_registered_once_without_files():
    importlib.reload(shapes)
    for split in ("train", "tune", "val"):
        metadata = MetadataCatalog.get(f"shapes_{split}")
        assert f"shapes_{split}" in DatasetCatalog
        assert metadata.evaluator_type == "coco"
        assert metadata.json_file.endswith(
            os.path.join("shapes", "annotations", f"instances_{split}.json")
        )
        assert metadata.image_root.endswith(os.path.join("shapes", split))


def test_a_name_can_be_registered_again_only_for_the_same_files(tmp_path, register):
    name = register("test_shapes_again", tmp_path, "val")
    register_shapes(name, tmp_path, "val")
    with pytest.raises(ValueError, match="registered already"):
        register_shapes(name, tmp_path, "train")


def test_missing_files_give_the_command_that_makes_them(tmp_path, monkeypatch, register):
    name = register("test_shapes_missing", tmp_path / "shapes", "val")
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get(name)
    assert "instances_val.json" in str(error.value)
    command = f"dense_kd.data.generate_shapes({str(tmp_path / 'shapes')!r}, 'val', num_images)"
    assert command in str(error.value)

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"with: dense-kd data shapes$"):
        DatasetCatalog.get(name)


@pytest.mark.slow
def test_the_tool_makes_what_the_builtin_names_read(tmp_path):
    command = "--train 3 --tune 2 --val 1 --size 48 64".split()
    done = run_in_fork(command, tmp_path, tmp_path, script=TOOL)
    assert done.returncode == 0, done.stderr
    for split, count in {"train": 3, "tune": 2, "val": 1}.items():
        json_file = tmp_path / "shapes" / "annotations" / f"instances_{split}.json"
        assert len(read(json_file)["images"]) == count
        assert f"shapes_{split}: {count} images in {json_file}" in done.stdout
