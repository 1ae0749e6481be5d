"""The training script with ``train.device=cuda``, from its arguments to its files."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd import compat, get_config
from dense_kd.benchmark.pretended import pretended_gpu
from dense_kd.data import generate_shapes, register_shapes
from helpers.script_runs import metrics, run

NAMES = ("gpu_train", "gpu_val")


@pytest.fixture
def data(tmp_path):
    for name, split in zip(NAMES, ("train", "val")):
        generate_shapes(tmp_path, split, 2, image_size=(64, 64))
        register_shapes(name, tmp_path, split)
    train, test = NAMES
    yield [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={test}"]
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_report_of_the_machine_that_fails_ends_no_run(monkeypatch):
    def fails() -> str:
        raise ImportError("no operator")

    monkeypatch.setattr(compat, "collect_env_info", fails)
    report = compat.environment_report()
    assert "not described: ImportError: no operator" in report and torch.__version__ in report


@pytest.mark.slow
def test_it_trains_and_evaluates_there(data, tmp_path):
    output, teacher = tmp_path / "output", tmp_path / "teacher.pth"
    torch.manual_seed(0)
    torch.save(instantiate(get_config("quickstart/teacher.py").model).state_dict(), teacher)
    options = [*data, "dataloader.train.total_batch_size=2", "train.log_period=1"]
    options += [f"model.teacher.weights={teacher}", f"train.output_dir={output}"]
    options += ["train.device=cuda", "train.amp.enabled=True", "train.amp.dtype=bfloat16"]
    with pretended_gpu() as gpu:
        run("quickstart/distill.py", [*options, "train.max_iter=1"])
    assert gpu.counts.kernels > 1000
    assert "bbox/AP" in metrics(output)[-1]
    final = torch.load(output / "model_final.pth", map_location="cpu", weights_only=True)
    assert final["iteration"] == 0 and len(final["trainer"]["random"]["cuda"]) == 1
