"""The training script, from its arguments to its files, on a few generated images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.utils.env import seed_all_rng

from dense_kd import DistillationError, get_config, get_config_file
from dense_kd.checkpoint import CheckpointError
from dense_kd.data import DatasetError, generate_shapes, register_shapes
from dense_kd.engine import RunError
from helpers.script_runs import assert_equal, metrics, run, run_in_fork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> str:
    output = tmp_path_factory.mktemp("teacher")
    run("quickstart/teacher.py", [*data, "train.max_iter=2", f"train.output_dir={output}"])
    return str(output / "model_final.pth")


def overrides(data: list[str], teacher: str, output: Path, *more: str) -> list[str]:
    return [*data, f"model.teacher.weights={teacher}", f"train.output_dir={output}", *more]


def test_a_distillation_trains_resumes_exactly_and_is_evaluated_without_its_teacher(
    data, teacher, tmp_path
):
    options = ["train.checkpointer.period=2", "model.methods.bckd.loc_weight=2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("quickstart/distill.py", overrides(data, teacher, whole, "train.max_iter=4", *options))
    log = (whole / "log.txt").read_text()
    assert f"Loaded the teacher FCOS from {teacher}" in log
    assert "kd_bckd_loss_cls: " in log and "kd_bckd_loss_loc: " in log
    lines = [line for line in metrics(whole) if "total_loss" in line]
    distilled = {"kd_bckd_loss_cls", "kd_bckd_loss_loc"}
    assert distilled | {"loss_fcos_cls", "grad_norm", "lr"} <= set(lines[0])
    assert "bbox/AP" in metrics(whole)[-1]
    final = torch.load(whole / "model_final.pth", weights_only=True)
    student = instantiate(get_config("quickstart/student.py").model)
    student.load_state_dict(final["model"], strict=True)

    # The schedule depends on max_iter, so the run is cut by hiding its later checkpoints.
    shutil.copytree(whole, cut)
    os.remove(cut / "model_final.pth")
    os.remove(cut / "model_0000003.pth")
    (cut / "last_checkpoint").write_text("model_0000001.pth")
    resumed = overrides(data, teacher, cut, "train.max_iter=4", *options)
    run("quickstart/distill.py", resumed, "--resume")
    again = torch.load(cut / "model_final.pth", weights_only=True)
    assert again["iteration"] == final["iteration"] == 3
    for part in ("model", "trainer"):
        assert_equal(again[part], final[part])

    gone = str(tmp_path / "a machine without the teacher.pth")
    evaluate = [f"train.init_checkpoint={whole / 'model_final.pth'}"]
    evaluated = tmp_path / "evaluated"
    run("quickstart/distill.py", overrides(data, gone, evaluated, *evaluate), "--eval-only")
    bare = [*data, *evaluate, f"train.output_dir={evaluated}"]
    run("quickstart/student.py", bare, "--eval-only")


def test_the_teacher_alone_can_be_evaluated(data, teacher, tmp_path):
    gone = str(tmp_path / "none.pth")
    with pytest.raises(RunError, match="none.pth"):
        run("quickstart/distill.py", overrides(data, gone, tmp_path), "--eval-teacher")
    results = run("quickstart/distill.py", overrides(data, teacher, tmp_path), "--eval-teacher")
    assert "AP" in results["bbox"]


def test_what_cannot_train_stops_before_the_first_iteration(data, teacher, tmp_path):
    def refused(error, message, *more, config="quickstart/distill.py", weights=teacher):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(error, match=f"(?s){message}"):
            run(config, overrides(data, weights, output, "train.max_iter=2", *more))
        assert not (output / "metrics.json").exists()

    refused(RunError, "none.pth does not exist", weights=str(tmp_path / "none.pth"))
    other_head = "model.teacher.model.head.norm="
    refused(CheckpointError, "does not fit FCOS.*unexpected in the file", other_head)
    refused(DistillationError, "num_classes=5.* teacher 3", "model.teacher.model.num_classes=3")
    no_method = tmp_path / "no_method.py"
    text = Path(get_config_file("quickstart/distill.py")).read_text()
    no_method.write_text(text.replace("bckd=L(BCKD)(cls_weight=4.0, loc_weight=4.0)", ""))
    refused(RunError, "MethodSet has no method", config=str(no_method))


def test_weights_that_do_not_fit_are_neither_evaluated_nor_started_from(data, teacher, tmp_path):
    """An AP of half a model, or a run from noise, would look like a result."""
    trained = torch.load(teacher, weights_only=True)["model"]  # wider than the student
    files = {"foreign": {"foo": torch.zeros(3)}, "wider": trained}
    for name, weights in files.items():
        file, output = tmp_path / f"{name}.pth", tmp_path / name
        torch.save({"model": weights}, file)
        more = [f"train.init_checkpoint={file}", "train.max_iter=1", f"train.output_dir={output}"]
        for config in ("student", "distill"):
            options = overrides(data, teacher, output, *more)
            options = options if config == "distill" else [*data, *more]
            with pytest.raises(CheckpointError, match=f"{name}.pth does not fit FCOS"):
                run(f"quickstart/{config}.py", options, "--eval-only")
            with pytest.raises(CheckpointError, match=f"(?s){name}.pth.*train.init_partial=True"):
                run(f"quickstart/{config}.py", options)
        assert not (output / "model_final.pth").exists()
        run("quickstart/student.py", [*data, *more, "train.init_partial=True"])
        assert (output / "model_final.pth").exists()


def test_a_dataset_without_annotations_is_named(data, teacher, tmp_path):
    source = MetadataCatalog.get("tiny_train").json_file
    content = json.loads(Path(source).read_text())
    content["annotations"] = []
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    register_shapes("without_annotations", tmp_path, "train")
    more = ["dataloader.train.dataset.names=without_annotations"]
    stock = "dataloader.train.dataset._target_=detectron2.data.get_detection_dataset_dicts"
    for loader in ([], [stock, "dataloader.train.dataset.filter_empty=True"]):
        with pytest.raises(DatasetError, match="instances_train.json.* 8 images and no annotation"):
            run("quickstart/distill.py", overrides(data, teacher, tmp_path / "out", *more, *loader))


CONSOLE_SCRIPT = """
import sys
from dense_kd.cli import main
if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    sys.exit(main())
"""
"""What pip writes for ``dense-kd``, which is given ``train``."""


def test_the_console_script_starts_two_processes_on_the_cpu_which_measure_and_draw(
    tmp_path, teacher
):
    script = tmp_path / "dense-kd"
    script.write_text(CONSOLE_SCRIPT)
    root = tmp_path / "shapes"
    generate_shapes(root, "train", 8, image_size=(64, 64))
    generate_shapes(root, "val", 4, image_size=(64, 64))
    command = [
        "--num-gpus", "2", "--dist-url", "auto",
        "quickstart/distill",
        f"model.teacher.weights={teacher}", f"train.output_dir={tmp_path / 'out'}",
        "train.max_iter=2", "dataloader.train.total_batch_size=4", "train.log_period=1",
        "train.diagnostics.period=2", "train.diagnostics.images=1",
        "train.maps.period=2", "train.maps.images=1", "train.maps.figures=[gradients]",
    ]  # fmt: skip
    # The two are started as for users, with the script and all it needs imported in each.
    result = run_in_fork(command, tmp_path, tmp_path, script=script, launches_forks=False)
    assert result.returncode == 0, result.stderr[-3000:]
    *_, step, last = metrics(tmp_path / "out")
    assert {"diag/share_bckd", "diag/agreement_p3"} <= set(step)
    assert {"bbox/AP", "diag/distance_teacher"} <= set(last)
    (events,) = (tmp_path / "out").glob("events.out.tfevents.*")  # the main process alone writes
    assert events.read_bytes().count(b"maps/") == 1
    assert (tmp_path / "out" / "log.txt.rank1").exists()
    warnings = [line for line in result.stderr.splitlines() if "UserWarning" in line]
    assert not [w for w in warnings if "pkg_resources" not in w]  # which torch 2.1 imports


def test_with_one_seed_the_baseline_and_the_distilled_student_start_alike(data, teacher):
    """The two of the demo differ by the losses of the method, and by nothing else."""
    starts = []
    for name, more in (("student", []), ("distill", [f"model.teacher.weights={teacher}"])):
        cfg = LazyConfig.apply_overrides(get_config(f"quickstart/{name}.py"), [*data, *more])
        seed_all_rng(1)
        model = instantiate(cfg.model)
        batches = iter(instantiate(cfg.dataloader.train))
        starts.append((model.state_dict(), [next(batches) for _ in range(3)], cfg))
    (weights, batches, cfg), (other_weights, other_batches, other_cfg) = starts
    assert_equal(dict(weights), dict(other_weights))
    for batch, other in zip(batches, other_batches):
        assert [x["file_name"] for x in batch] == [x["file_name"] for x in other]
        assert all(torch.equal(x["image"], y["image"]) for x, y in zip(batch, other))
    for part in ("optimizer", "lr_multiplier", "dataloader"):
        assert cfg[part] == other_cfg[part]
    assert {**cfg.train, "output_dir": ""} == {**other_cfg.train, "output_dir": ""}
