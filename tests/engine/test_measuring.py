"""What is measured of student and teachers on the annotated images of a test set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.conflicts import conflicts
from dense_kd.diagnostics.locations import compared_classes
from dense_kd.diagnostics.masking import FRACTIONS, without_best
from dense_kd.engine import RunError, measuring
from dense_kd.engine.dry_run.scores import scores
from dense_kd.engine.measuring import (
    EvaluationDistances,
    Pair,
    TestImages,
    count_conflicts,
    masked_precision,
)
from dense_kd.engine.training_maps import TrainingMaps
from helpers.builders import instances, tiny_autoassign, tiny_ddod, tiny_fcos, tiny_retinanet
from helpers.checked_runs import load
from helpers.two_processes import launch_two


def pair_of(num_classes: int = 5, make=tiny_fcos, **options) -> Pair:
    student, teacher = make(num_classes=5), make(seed=1, num_classes=num_classes)
    methods = MethodSet(bckd=BCKD(**options))
    model = Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)
    return Pair(model, model.teacher, compared_classes(model))


def test_images_are_the_first_of_the_test_set_with_their_objects():
    images = TestImages(load(), 3)
    expected = DatasetCatalog.get("checked_val")[:3]
    assert [x["file_name"] for x in images.records] == [x["file_name"] for x in expected]
    for (image,), record in zip(images, expected):
        boxes = [x["bbox"] for x in record["annotations"]]
        sizes = (
            image["instances"].gt_boxes.tensor[:, 2:] - image["instances"].gt_boxes.tensor[:, :2]
        )
        np.testing.assert_allclose(sizes.reshape(-1, 2), np.reshape(boxes, (-1, 4))[:, 2:], 1e-4)
    assert len(TestImages(load()).records) == 4


def test_a_test_set_without_labels_is_refused(monkeypatch):
    records = [{k: v for k, v in x.items() if k != "annotations"}
               for x in DatasetCatalog.get("checked_val")]  # fmt: skip
    monkeypatch.setitem(DatasetCatalog.data, "checked_val", lambda: records)
    with pytest.raises(RunError, match="what is measured needs labels"):
        TestImages(load("dataloader.test.dataset.filter_empty=false"))


def test_conflicts_are_counted_over_all_images():
    pair, images, told = pair_of(), TestImages(load(), 2), []
    found = count_conflicts({"own": pair}, images, lambda *done: told.append(done))["own"]
    each = []
    for batch in images:
        ours, theirs, targets = pair.passes(batch)
        each.append(conflicts(ours, theirs, targets))
    assert found == each[0] + each[1] and told == [(1, 2), (2, 2)]
    assert found.locations == 2 * (64 + 16 + 4)


def test_without_masking_the_ap_is_that_of_the_detector():
    pair, images = pair_of(), TestImages(load(), 2)
    found = masked_precision({"own": pair}, images)["own"]
    detected = [pair.teacher.detect(batch, "BGR")[0]["instances"] for batch in images]
    expected = scores(images.records, detected, {number: number for number in range(5)})
    assert found["masked"] == [100 * x for x in FRACTIONS] and len(found["ap50"]) == len(FRACTIONS)
    assert (found["ap"][0], found["ap50"][0]) == (expected.ap, expected.ap50)


def test_what_is_evaluated_is_what_masking_leaves(monkeypatch):
    pair, images, evaluated = pair_of(), TestImages(load(), 2), []

    def recorded(records, found, classes):
        evaluated.append([len(each) for each in found])
        return scores(records, found, classes)

    monkeypatch.setattr(measuring, "FRACTIONS", (0.0, 1.0))
    monkeypatch.setattr(measuring, "scores", recorded)
    masked_precision({"own": pair}, images)
    for index, batch in enumerate(images):
        left = without_best(pair.teacher_pass(batch), [batch[0]["instances"]], 1.0)
        expected = pair.teacher.model.results(left, batch)[0]["instances"]
        assert evaluated[1][index] == len(expected)
    assert evaluated[1] != evaluated[0]


def test_objects_get_the_teachers_numbers_and_those_without_one_are_left_out():
    pair = pair_of(num_classes=6, class_map={5: 0, 1: 2})
    truth = instances((64, 64), [[0, 0, 8, 8], [0, 0, 9, 9], [0, 0, 7, 7]], [2, 1, 0])
    found = pair.their_classes(truth)
    assert found.gt_classes.tolist() == [1, 5]
    assert found.gt_boxes.tensor[:, 2].tolist() == [8, 7]
    assert truth.gt_classes.tolist() == [2, 1, 0]
    assert pair.dataset_classes() == {5: 0, 1: 2}
    assert pair_of().dataset_classes() == {number: number for number in range(5)}


@pytest.mark.parametrize("make", [tiny_fcos, tiny_retinanet, tiny_autoassign, tiny_ddod])
def test_distances_of_an_evaluation_leave_model_and_random_generators_as_they_are(make):
    model = pair_of(make=make).model.train()
    model.student.backbone.eval()  # as where a part is frozen
    before = {name: value.clone() for name, value in tensors(model.student)}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    measured = EvaluationDistances(load(), model, 2)
    first = measured.run()
    assert set(first) == {"distance_teacher", "distance_truth"} and min(first.values()) > 0
    assert measured.run() == first
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert model.training and model.student.head.training and not model.student.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in tensors(model.student))


def tensors(module) -> list:
    """Parameters and buffers, also those that are not in the state dict."""
    return [*module.named_parameters(), *module.named_buffers()]


def worker(output: str) -> None:
    model = pair_of(make=tiny_autoassign).model
    found = EvaluationDistances(load(), model, 3).run()
    # Its losses are normalised over the processes, so one that draws alone would wait for ever.
    (inputs,) = next(iter(TestImages(load(), 1)))
    options = {"period": 1, "images": 1, "figures": ["gradients"]}
    hook = TrainingMaps(model, {"a": inputs}, folder=output, **options)
    hook.trainer = mock.Mock(iter=0)
    picture = mock.Mock(**{"maps_as_array.return_value": np.zeros((1, 1, 3), np.uint8)})
    with mock.patch.dict(sys.modules, {"dense_kd.visualize.maps": picture}):
        hook.after_step()
    drawn = [call.args[0] for call in hook.trainer.storage.put_image.call_args_list]
    content = json.dumps({"distances": found, "drawn": drawn})
    Path(output, f"{comm.get_rank()}.json").write_text(content)


@pytest.mark.slow
def test_two_processes_measure_what_one_does_and_the_main_one_draws(tmp_path):
    launch_two(worker, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    one = EvaluationDistances(load(), pair_of(make=tiny_autoassign).model, 3).run()
    assert found[0]["distances"] == found[1]["distances"] == pytest.approx(one, rel=1e-5)
    assert [each["drawn"] for each in found] == [["maps/a/gradients"], []]
