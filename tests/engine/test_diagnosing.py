"""What ``dense-kd diagnose`` loads, and what it refuses."""

from __future__ import annotations

import json

import pytest

from dense_kd.checkpoint import CheckpointError
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.engine import RunError
from dense_kd.engine.diagnosing import diagnose, distances_of_run
from dense_kd.engine.evaluating import weights_of
from helpers.checked_runs import DATA
from helpers.tried_runs import write_teacher


@pytest.mark.parametrize(
    "options, said",
    [
        ({"what": []}, "expected one or more of conflicts, masking, distances"),
        ({"what": ["conflict"]}, "what 'conflict': expected one or more of"),
        ({"what": ["masking", "masking"]}, "each once"),
        ({"num_images": 0}, "0 images: expected 1 or more"),
        ({"teachers": {"teacher": "a.pth"}}, "give a.pth another one"),
        (
            {"runs": {"PKD": "out"}},
            r"further runs \(PKD\) have no effect, since they are for",
        ),
        ({"runs": {"no/such/config": "out"}}, "title of the config's own run; give out another"),
        ({"what": ["distances"], "num_images": 3}, "neither images nor further teachers count"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_loaded(options, said):
    with pytest.raises(DiagnosticsError, match=said):
        diagnose("no/such/config", **options)


def test_a_config_of_no_distillation_is_refused():
    with pytest.raises(RunError, match="quickstart/student is of no distillation"):
        diagnose("quickstart/student")


def test_a_student_whose_targets_go_by_predictions_needs_weights(tmp_path):
    teacher = write_teacher(tmp_path / "teacher.pth")
    overrides = [f"model.teacher.weights={teacher}", *DATA, f"train.output_dir={tmp_path}"]
    found = diagnose("quickstart/distill", overrides, num_images=1)  # FCOS's do not
    assert found["images"] == 1 and found["conflicts"]["teacher"]["locations"] == 84
    dynamic = "model.student._target_=helpers.dynamic_fcos.DynamicFCOS"
    with pytest.raises(RunError, match="there are no weights to evaluate"):
        diagnose("quickstart/distill", [*overrides, dynamic], num_images=1)
    gone = "train.init_checkpoint=gone.pth"
    with pytest.raises(CheckpointError, match="gone.pth does not exist"):
        diagnose("quickstart/distill", [*overrides, dynamic, gone], num_images=1)


def test_weights_that_a_config_starts_from_are_not_those_of_its_run(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"train: {{output_dir: {tmp_path}, init_checkpoint: imagenet.pth}}\n")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert weights_of(str(config), []) == f"{tmp_path}/model_final.pth"
    assert weights_of(str(config), ["train.init_checkpoint=a.pth"]) == "a.pth"


def test_distances_are_those_that_the_run_has_written(tmp_path):
    rows = [
        {"iteration": 9, "total_loss": 1.0},
        {"iteration": 19, "diag/distance_teacher": 0.3, "diag/distance_truth": 0.5, "bbox/AP": 7.0},
        {"iteration": 40, "diag/distance_teacher": 0.2, "diag/distance_truth": 0.4,
         "bbox/AP": float("nan")},
    ]  # fmt: skip
    (tmp_path / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert distances_of_run(str(tmp_path)) == {
        "iteration": [19, 40], "teacher": [0.3, 0.2], "truth": [0.5, 0.4], "ap": [7.0, None],
    }  # fmt: skip


def test_a_run_without_distances_is_told_how_to_get_them(tmp_path):
    with pytest.raises(DiagnosticsError, match="train with train.diagnostics.images=100"):
        distances_of_run(str(tmp_path))
