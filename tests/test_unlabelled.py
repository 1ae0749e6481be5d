"""Images without labels in a batch: detection losses of the others, distillation of all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from dense_kd import (
    BCKD,
    FGD,
    PKD,
    DistillationError,
    Distiller,
    MethodSet,
    PseudoLabels,
    Teacher,
    unlabelled,
)
from dense_kd.diagnostics.hook import Diagnostics
from dense_kd.engine import Trainer
from dense_kd.engine.replay.batches import from_plain, to_plain
from helpers import builders
from helpers.builders import tiny_retinanet
from helpers.feature_cases import distill
from helpers.method_cases import build, every_method, images_with

DETECTORS = ("retinanet", "fcos", "atss", "gfl", "ddod", "autoassign")
SCORE = 0.21
"""Above FCOS's own bound, and below what random teachers find."""


def images() -> list[dict[str, Any]]:
    return images_with(
        [[5, 5, 40, 40], [20, 20, 60, 62]], [[2, 3, 30, 60]], [[10, 4, 50, 30]], [[1, 1, 63, 50]]
    )


def bare(image: dict[str, Any]) -> dict[str, Any]:
    return {"image": image["image"], "unlabelled": True}


def distiller(name: str = "retinanet", thresh: float | None = SCORE, method=None) -> Distiller:
    make = getattr(builders, f"tiny_{name}")
    student, teacher = (make(seed=seed, num_levels=5, width=4) for seed in (0, 1))
    labels = None if thresh is None else PseudoLabels(score_thresh=thresh)
    return distill(student, teacher, method or BCKD(), pseudo_labels=labels)


def detected(model: Distiller, batch: list[dict[str, Any]], index: int) -> Instances:
    """What the teacher finds by itself in an image, in eval mode, as ground truth."""
    found = model.teacher.detect(batch, model.student.input_format)[index]["instances"]
    found = found[found.scores >= SCORE]
    return Instances(found.image_size, gt_boxes=found.pred_boxes, gt_classes=found.pred_classes)


def losses(model: Distiller, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    torch.manual_seed(0)  # MGD draws a mask
    with EventStorage():
        return model(batch)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], kd: bool) -> None:
    """Those of the methods, or of the detector."""
    names = [name for name in found if name.startswith("kd_") == kd]
    assert names and names == [name for name in expected if name.startswith("kd_") == kd]
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)


@every_method
def test_methods_take_the_teachers_detections_for_the_objects_of_an_unlabelled_image(name, variant):
    plain = build(name, variant)
    reads = plain.kd.feature.needs.ground_truth
    model = build(name, variant, pseudo_labels=PseudoLabels(score_thresh=SCORE) if reads else None)
    a, b, c, _ = images()
    objects = detected(model, [a, c, b], 1)
    assert len(objects) > 3
    assert_equal(
        losses(model, [a, bare(c), b]), losses(plain, [a, {**c, "instances": objects}, b]), kd=True
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_detection_losses_their_normalizers_and_gradients_are_those_of_the_labelled_images(name):
    model = distiller(name)
    alone, taught = copy.deepcopy(model.student), distiller(name)
    a, b, c, _ = images()
    found, expected = losses(model, [bare(c), a, b]), losses(alone, [a, b])
    assert_equal(found, expected, kd=False)
    for buffer in (*model.student.training_buffers, *model.student.optional_buffers):
        assert torch.equal(getattr(model.student, buffer), getattr(alone, buffer)), buffer
    kd = losses(taught, [{**c, "instances": detected(taught, [c, a, b], 0)}, a, b])
    sum(found.values()).backward()
    (sum(expected.values())).backward()
    sum(loss for key, loss in kd.items() if key.startswith("kd_")).backward()
    for (key, p), q, r in zip(
        model.student.named_parameters(), alone.parameters(), taught.student.parameters()
    ):
        parts = sum(x.grad if x.grad is not None else torch.zeros_like(x) for x in (q, r))
        builders.assert_close(p.grad, parts, 1e-4, key, scale=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_of_unlabelled_images_alone_has_detection_losses_of_0_with_a_graph(name):
    model = distiller(name)
    found = losses(model, [bare(image) for image in images()[:2]])
    own = {key: loss for key, loss in found.items() if not key.startswith("kd_")}
    assert own and all(loss.item() == 0 and loss.requires_grad for loss in own.values())
    assert found["kd_feature_loss_cls"] > 0
    sum(found.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_an_image_in_which_the_teacher_is_sure_of_nothing_has_no_objects():
    model = distiller("retinanet", 0.999, FGD())
    a, _, c, _ = images()
    assert len(model.pseudo_labels.complete(*_passes(model, [c]), [], [])[0]) == 0
    found = losses(model, [a, bare(c)])
    assert all(loss.isfinite() for loss in found.values())


def _passes(model: Distiller, batch: list[dict[str, Any]]) -> tuple[Any, Any]:
    student = model.student
    return model.teacher.model, model.teacher.run(batch, student.preprocess_image(batch), student)


def test_scores_and_classes_decide_which_detections_are_objects():
    names = ["a", "b", "c", "d"]
    student = tiny_retinanet(num_classes=2, class_names=["d", "b"])
    teacher = Teacher(tiny_retinanet(seed=1, class_names=names), None)
    model = Distiller(
        student=student,
        teacher=teacher,
        methods=MethodSet(fgd=FGD()),
        pseudo_labels=PseudoLabels(score_thresh=0.2, class_map="by_name"),
    )
    image = builders.batch()[0]
    (objects,) = model.pseudo_labels.complete(*_passes(model, [image]), [], [])
    (everything,) = teacher.model.inference(_passes(model, [image])[1])
    kept = [
        (["d", "b"].index(names[c]), box)
        for c, s, box in zip(everything.pred_classes, everything.scores, everything.pred_boxes)
        if s >= 0.2 and names[c] in ("b", "d")
    ]
    assert 0 < len(kept) < len(everything)
    assert objects.gt_classes.tolist() == [c for c, _ in kept]
    low, high = torch.zeros(4), torch.tensor(objects.image_size[::-1] * 2)
    expected = torch.stack([box for _, box in kept]).clamp(low, high.float())  # to the image
    torch.testing.assert_close(objects.gt_boxes.tensor, expected)


def test_what_methods_divide_by_is_a_moving_average_over_all_images_as_the_students_over_its_own():
    model = distiller("retinanet")
    a, _, c, _ = images()
    counts, own = [], []
    for _ in range(2):
        losses(model, [a, bare(c)])
        own.append(model.student.loss_normalizer.item())
        counts.append(model.pseudo_labels.normalizer.item())
    positives = [(n - 0.9 * before) / 0.1 for n, before in zip(counts, [100, counts[0]])]
    of_labelled = [(n - 0.9 * before) / 0.1 for n, before in zip(own, [100, own[0]])]
    assert positives[0] == pytest.approx(positives[1], rel=1e-3)
    assert positives[0] > of_labelled[0] > 0
    assert set(model.state_dict()) == set(model.student.state_dict())


def test_accumulated_batches_that_are_normalized_together_are_one_batch_of_all():
    a, b, c, d = images()

    def trained(batches: list[list[dict[str, Any]]]) -> tuple[dict[str, float], list[Tensor]]:
        model = distiller("gfl")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        accumulate = len(batches)
        run = Trainer(model, batches, optimizer, accumulate=accumulate, normalize="iteration")
        run.train(0, 1)
        found = {k: v for k, (v, _) in run.storage.latest().items() if "loss" in k}
        return found, [p.grad for p in model.parameters()]

    whole, expected = trained([[a, b, bare(c), bare(d)]])
    for batches in ([[a, bare(c)], [b, bare(d)]], [[a, b], [bare(c), bare(d)]]):
        parts, gradients = trained(batches)
        assert parts == pytest.approx(whole, rel=1e-5)
        for x, y in zip(gradients, expected):
            builders.assert_close(x, y, 1e-4, scale=1e-3)


def test_the_trainers_state_has_the_normalizer_and_gives_it_back():
    def run(model: Distiller) -> Trainer:
        batch = [images()[0], bare(images()[2])]
        return Trainer(model, [batch] * 4, torch.optim.SGD(model.parameters(), lr=0.0))

    first, second = run(distiller()), run(distiller())
    first.train(0, 2)
    state = first.state_dict()
    assert "pseudo_labels.normalizer" in state["training_buffers"]
    second.load_state_dict(state)
    expected = first.model.pseudo_labels.normalizer
    assert torch.equal(second.model.pseudo_labels.normalizer, expected) and expected != 100


def test_diagnostics_count_conflicts_in_labelled_images_alone():
    found = []
    for batch in ([images()[0]], [images()[0], bare(images()[2])], [bare(images()[2])]):
        model = distiller("gfl")
        run = Trainer(model, [batch], torch.optim.SGD(model.parameters(), lr=0.0))
        run.register_hooks([Diagnostics(model, 1)])
        run.train(0, 1)
        latest = run.storage.latest()
        found.append(latest.get("diag/conflicts_per_positive", (None,))[0])
        assert "diag/share_feature" in latest
    assert found[0] == pytest.approx(found[1], rel=1e-6) and found[2] is None


def test_the_teacher_need_not_predict_for_methods_that_read_no_objects(monkeypatch):
    model = distiller("retinanet", None, PKD())
    monkeypatch.setattr(model.teacher.model, "inference", None)
    found = losses(model, [images()[0], bare(images()[2])])
    assert found["kd_feature_loss_feature"] > 0


def test_that_no_image_without_labels_comes_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(unlabelled, "_PASSES_WITHOUT", 2)
    a, _, c, _ = images()
    for batches, said in ([[[a]] * 4, 1], [[[a], [bare(c)], [a], [a]], 0]):
        caplog.clear()
        model = distiller("gfl")
        for batch in batches:
            losses(model, batch)
        assert caplog.text.count("no image without labels has come in 2 passes") == said


def test_a_cached_teacher_gives_the_same_objects_without_its_features():
    a, _, c, _ = images()
    model = distiller("gfl")
    expected = losses(model, [a, bare(c)])
    cached = Distiller(
        student=distiller("gfl").student,
        teacher=Teacher(model.teacher.model, None, cache="memory"),
        methods=MethodSet(feature=BCKD()),
        pseudo_labels=PseudoLabels(score_thresh=SCORE),
    )
    for _ in range(2):
        assert_equal(losses(cached, [a, bare(c)]), expected, kd=True)
    assert "had 2 of 4 images" in cached.teacher.cache.report()


def test_steps_in_bfloat16_are_finite_and_their_batches_can_be_kept_for_a_replay():
    a, _, c, _ = images()
    for batch in ([a, bare(c)], [bare(c)]):
        assert from_plain(to_plain(batch))[-1]["unlabelled"] is True
        # Of maps of one cell, torch 2.12 gives gradients of NaN on some CPUs.
        model = distill(
            tiny_retinanet(), tiny_retinanet(seed=1), FGD(),
            pseudo_labels=PseudoLabels(score_thresh=SCORE),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        Trainer(model, [batch] * 2, optimizer, amp_dtype="bfloat16").train(0, 2)


def test_what_cannot_be_learnt_from_is_refused_with_what_to_do():
    a, _, c, _ = images()
    with pytest.raises(DistillationError, match=r"methods \['feature'\] read ground truth.*Pseudo"):
        losses(distiller(thresh=None), [a, bare(c)])
    with pytest.raises(DistillationError, match="does nothing with the methods"):
        distiller(method=PKD())
    with pytest.raises(DistillationError, match="below its test_score_thresh=0.05"):
        distiller(thresh=0.01)
    with pytest.raises(ValueError, match="score_thresh=1.5: expected a number between 0 and 1"):
        PseudoLabels(score_thresh=1.5)
    with pytest.raises(DistillationError, match="no objects of the student.*class_map"):
        distill(
            tiny_retinanet(), tiny_retinanet(seed=1, num_classes=3), FGD(),
            pseudo_labels=PseudoLabels(score_thresh=SCORE),
        )  # fmt: skip
    with pytest.raises(TypeError, match="pseudo_labels is a float, expected a dense_kd Pseudo"):
        distill(tiny_retinanet(), tiny_retinanet(seed=1), FGD(), pseudo_labels=0.4)
    with pytest.raises(ValueError, match="has no 'instances' in training"):
        losses(tiny_retinanet(), [bare(c)])
