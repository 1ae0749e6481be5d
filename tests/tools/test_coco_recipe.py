"""The commands for COCO of README and pages, on a folder laid out as COCO is."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

from dense_kd import get_config
from dense_kd.data import generate_shapes
from helpers.configs import detectors_of, fresh, make_small, random_numbers_from_a_table
from helpers.script_runs import SCRIPT, fork_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
README, START, TRAINING_PAGE = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/index.md", "docs/training.md")
)


def make_coco(root: Path) -> None:
    """Two generated images per split, with COCO's own categories, names and folders."""
    metadata = MetadataCatalog.get("coco_2017_val")
    ids = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    categories = [{"id": ids[i], "name": name} for i, name in enumerate(metadata.thing_classes)]
    for split in ("train2017", "val2017"):
        path = Path(generate_shapes(root, split, 2, image_size=(96, 128)))
        content = json.loads(path.read_text())
        content["categories"] = categories
        for annotation in content["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        path.write_text(json.dumps(content))


@contextlib.contextmanager
def small_detectors() -> Iterator[None]:
    """Configs of the project and of detectron2 have them; weights cost no time to draw."""
    load_config = LazyConfig.load

    def load(path: str, *keys: object) -> object:
        cfg = load_config(path, *keys)
        for model in detectors_of(cfg.model) if "model" in cfg else ():
            bottom_up = model.backbone.bottom_up
            if isinstance(bottom_up.stages, DictConfig):  # of detectron2, which has none for each
                ours = fresh("retinanet/r50_1x_ms.py").model.backbone.bottom_up
                bottom_up.stages = ours.stages
            if bottom_up.stages[2].num_blocks > 1:  # not small yet
                make_small(model)
        return cfg

    with mock.patch.object(LazyConfig, "load", load), random_numbers_from_a_table():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With COCO, the files of teachers and the config of ten lines."""
    root = tmp_path_factory.mktemp("coco")
    make_coco(root / "datasets" / "coco")
    for name in ("retinanet/r101_2x_ms.py", "gfl/r101_2x_ms.py"):
        with small_detectors():
            model = instantiate(get_config(name).model)
        torch.save({"model": model.state_dict()}, root / f"{name.split('/')[0]}.pth")
    (root / "distill.py").write_text(re.search(r"```python\n(.*?)```", START, re.DOTALL)[1])
    return root


def commands(beginning: str, page: str = README) -> list[list[str]]:
    """The words of the commands of a page that begin so."""
    lines = re.findall(r"^    (\S.*)$", page, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines if line.startswith(beginning)]


def run(words: list[str], folder: Path, logs: Path, teacher: str | None, *smaller: str) -> str:
    """A command in a process of its own, small enough for a CPU; what it printed."""
    program = ["-m", "dense_kd"] if words[0] == "dense-kd" else [str(SCRIPT)]
    words = words[1:] if words[0] == "dense-kd" else words[2:]
    smaller = (
        *("train.device=cpu", "dataloader.test.num_workers=0", *smaller),
        "dataloader.test.mapper.augmentations.0.short_edge_length=96",
        *((f"model.teacher.weights={folder}/{teacher}.pth",) if teacher else ()),
        *(("--num-gpus", "1") if "--num-gpus" in words else ()),
    )
    files = [logs / "stdout", logs / "stderr"]
    for file in files:
        file.write_text("")
    variables = {"DETECTRON2_DATASETS": str(folder / "datasets")}
    with small_detectors():
        process = fork_of([*program, *words, *smaller], files, variables)
        process.join(120)
    printed, errors = (file.read_text() for file in files)
    assert process.exitcode == 0, (words, errors[-3000:])
    return printed


TRAINING = [
    *("train.max_iter=1", "train.init_checkpoint=''", "train.log_period=1"),
    *("dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0"),
    "dataloader.train.mapper.augmentations.0.short_edge_length=[96]",
]


def assert_trained(output: Path, student: DictConfig) -> None:
    lines = (output / "metrics.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {"loss_cls", "loss_box_reg", "kd_bckd_loss_cls", "kd_bckd_loss_loc"} <= set(records[0])
    assert "bbox/AP" in records[-1]
    saved = torch.load(output / "model_final.pth", weights_only=True)["model"]
    with random_numbers_from_a_table():
        model = instantiate(student)
    model.load_state_dict(saved, strict=True)


def test_the_readmes_ten_lines_need_the_datasets_folder_and_a_teacher_file_only(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder)
    output = tmp_path / "out"
    script = f"python tools/{SCRIPT.name} --config-file distill"
    teacher, train, resume, evaluate = commands(script, TRAINING_PAGE)
    assert "copypaste" in run(teacher, folder, tmp_path, "retinanet")
    smaller = [*TRAINING, f"train.output_dir={output}"]
    run(train, folder, tmp_path, "retinanet", *smaller)
    with small_detectors():
        assert_trained(output, get_config("retinanet/r50_1x_ms.py").model)
    printed = run(resume, folder, tmp_path, "retinanet", *smaller, "train.max_iter=2")
    assert "Starting training from iteration 1" in printed
    weights = f"train.init_checkpoint={output}/model_final.pth"
    assert "copypaste" in run(evaluate, folder, tmp_path, "retinanet", weights)


def test_a_recipe_is_checked_trained_and_evaluated_as_the_readme_says(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    output = f"train.output_dir={tmp_path / 'out'}"
    (check,) = commands("dense-kd check bckd/")
    printed = run(check, folder, tmp_path, "gfl", *TRAINING, output, "--images=1", "--steps=1")
    assert printed.rstrip().endswith("fits")
    (train,) = commands("dense-kd train bckd/")
    run(train, folder, tmp_path, "gfl", *TRAINING, output)
    with small_detectors():
        student = get_config("gfl/r50_1x.py").model
    assert_trained(tmp_path / "out", student)
    beginning = f"python tools/{SCRIPT.name} --num-gpus 8 --config-file configs/bckd/"
    (script,) = commands(beginning, TRAINING_PAGE)
    run(script, folder, tmp_path, "gfl", *TRAINING, f"train.output_dir={tmp_path / 'again'}")
    (evaluate,) = commands("dense-kd eval gfl/")
    assert "AP" in run(evaluate, folder, tmp_path, None, output)
