"""``dense-kd distill DATA --unlabelled FOLDER``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from dense_kd import distill
from dense_kd.engine import load_config
from dense_kd.evaluation.errors import EvaluationError
from dense_kd.evaluation.score_threshold import ScoreThreshold
from dense_kd.pipeline import run as pipeline
from dense_kd.pipeline import unlabelled as module
from dense_kd.pipeline.errors import PipelineError
from dense_kd.pipeline.options import DistillOptions
from dense_kd.pipeline.plan import make_plan
from helpers.script_runs import trainings_are_forked
from helpers.small_distillation import SMALL


@pytest.fixture(scope="module")
def photos(images, tmp_path_factory) -> Path:
    """Three images of their own, and a copy of one that is evaluated on."""
    folder = tmp_path_factory.mktemp("more") / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (96, 64), (index * 50, 99, 99)).save(folder / f"{index}.png")
    shutil.copy(next((images / "val").glob("*.png")), folder / "copy.png")
    return folder


def plan_of(images, **changes):
    return make_plan(str(images), DistillOptions(**{**SMALL, **changes}))


def test_the_plan_says_which_images_there_are_and_how_they_are_learnt_from(images, photos):
    lines = [*plan_of(images, unlabelled=str(photos), unlabelled_ratio=0.5).lines()]
    start = lines.index(f"unlabelled: 3 images of {photos}; 1 left out, copies of DATA's")
    assert lines[start + 1 : start + 3] == [
        "  batch size: 2 (0.5 for each labelled image)",
        "  objects: the teacher's detections; their score: that of the largest F1 on the "
        "validation images, once the teacher is there",
    ]
    given = [*plan_of(images, unlabelled=str(photos), score_thresh=0.4).lines()]
    assert given[start + 2].endswith("their score: 0.4 (as given)")
    features = [*plan_of(images, unlabelled=str(photos), method="pkd").lines()]
    assert not any("objects:" in line for line in features)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"unlabelled": "nowhere"}, "unlabelled=nowhere: .* is no folder"),
        ({"unlabelled": "{images}/val"}, "all of its 4 images are in the data already"),
        ({"unlabelled": "{photos}", "score_thresh": 1.5}, "expected a score between 0 and 1"),
        ({"unlabelled": "{photos}", "score_thresh": 0.01}, "below its test_score_thresh=0.05"),
        ({"unlabelled": "{photos}", "unlabelled_ratio": 0.0}, "expected a number above 0"),
        ({"unlabelled": "{photos}", "score_thresh": 0.5, "method": "pkd"}, "reads no objects"),
        ({"score_thresh": 0.5}, "give their folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(changes, said, images, photos):
    filled = {
        k: v.format(images=images, photos=photos) if isinstance(v, str) else v
        for k, v in changes.items()
    }
    with pytest.raises(PipelineError, match=said):
        plan_of(images, **filled)


@pytest.mark.slow
def test_the_score_is_chosen_once_the_teacher_is_there_and_stands_in_the_config(
    images, photos, tmp_path
):
    output = tmp_path / "out"
    options = {**SMALL, "unlabelled": str(photos), "unlabelled_ratio": 0.5, "output": str(output)}
    options |= {"iterations": 1, "teacher_iterations": 1}
    chosen = ScoreThreshold(0.31, 0.75, 0.5, 0.6, 0.5)

    def run(**result):
        with mock.patch.object(module, "calibrate", **result) as calibrate:
            with trainings_are_forked(), mock.patch.object(pipeline, "write_page"):
                distill(images, **options)
            return calibrate

    with pytest.raises(PipelineError, match="nothing was detected. Give a score"):
        run(side_effect=EvaluationError("nothing was detected"))
    assert not (output / "distilled.py").exists()
    calibrate = run(return_value=chosen)
    predictor, data = calibrate.call_args.args
    assert predictor.class_names == data.classes and len(data.val) == 4
    text = (output / "distilled.py").read_text()
    assert "75.0 % of the detections are right and 50.0 % of the objects are found" in text
    cfg = load_config(str(output / "distilled.py"))
    assert cfg.model.pseudo_labels.score_thresh == 0.31
    assert cfg.dataloader.unlabelled.total_batch_size == 2
    listed = json.loads((output / "data" / "unlabelled.json").read_text())
    assert [image["file_name"] for image in listed["images"]] == ["0.png", "1.png", "2.png"]
    metrics = (output / "distilled" / "metrics.json").read_text()
    assert "kd_bckd_loss_cls" in metrics
    assert run(return_value=None).call_count == 0  # nothing is done twice
    options["fresh"] = True  # weights that come out the same say nothing of the labels
    assert run(return_value=chosen).call_count == 1
