"""A COCO recipe, on a folder laid out as COCO is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog

from dense_kd import get_config, get_config_file
from dense_kd.data import generate_shapes
from helpers.configs import random_numbers_from_a_table
from helpers.script_runs import run_in_fork

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
ONE_BLOCK = {"num_blocks": 1, "stride_per_block": [2]}
"""In the stage of the teacher that has 23."""


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


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> Path:
    """A folder with COCO, a teacher's file and the config of the README."""
    root = tmp_path_factory.mktemp("datasets")
    make_coco(root / "coco")
    with random_numbers_from_a_table():
        cfg = get_config("retinanet/r101_2x_ms.py")
        cfg.model.backbone.bottom_up.stages[2].update(ONE_BLOCK)
        model = instantiate(cfg.model)
    torch.save({"model": model.state_dict()}, root / "teacher.pth")
    (root / "distill.py").write_text(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1])
    return root


def arguments(config: str, datasets: Path, output: Path) -> list[str]:
    return [
        *("--config-file", config),
        f"model.teacher.weights={datasets / 'teacher.pth'}",
        f"train.output_dir={output}",
        *(f"model.teacher.model.backbone.bottom_up.stages.2.{k}={v}" for k, v in ONE_BLOCK.items()),
        # Small enough for a CPU; ImageNet weights would be downloaded.
        *("train.device=cpu", "train.max_iter=1", "train.init_checkpoint=''"),
        *("dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0"),
        *("dataloader.test.num_workers=0", "train.log_period=1"),
        "dataloader.train.mapper.augmentations.0.short_edge_length=[96]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=96",
    ]


def test_it_needs_the_datasets_folder_and_a_teacher_file_only(datasets, tmp_path):
    config = get_config_file("bckd/retinanet_r101_r50_1x_ms.py")
    assert_trains_and_evaluates(config, datasets, tmp_path)


def test_the_readmes_ten_lines_need_no_more(datasets, tmp_path):
    assert_trains_and_evaluates(str(datasets / "distill.py"), datasets, tmp_path)


def assert_trains_and_evaluates(config: str, datasets: Path, folder: Path) -> None:
    output = folder / "out"
    with random_numbers_from_a_table():
        result = run_in_fork(arguments(config, datasets, output), folder, datasets)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = (output / "metrics.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {"loss_cls", "loss_box_reg", "kd_bckd_loss_cls", "kd_bckd_loss_loc"} <= set(records[0])
    assert "bbox/AP" in records[-1]
    saved = torch.load(output / "model_final.pth", weights_only=True)["model"]
    with random_numbers_from_a_table():
        student = instantiate(get_config("retinanet/r50_1x_ms.py").model)
    student.load_state_dict(saved, strict=True)
