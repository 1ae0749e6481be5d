"""A distillation in which no detector teaches: a network that a method brings along does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from dense_kd import (
    BCKD,
    DSI,
    MGD,
    PKD,
    DistillationError,
    Distiller,
    KDMethod,
    MethodSet,
    PseudoLabels,
    methods,
)
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.data.unlabelled import UNLABELLED
from dense_kd.methods import Needs
from dense_kd.methods.base.no_teacher import NO_TEACHER
from helpers.builders import CASES, batch, tiny_ddod, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill
from helpers.feature_networks import OneMap, feature_teacher
from helpers.method_cases import PAIRS, VARIANTS


def dsi(**options) -> DSI:
    return DSI(teacher=feature_teacher(), **options)


def alone(*, student=None, **of_run) -> Distiller:
    return distill(student or tiny_gfl(), None, **(of_run or {"dsi": dsi()}))


def step(model: Distiller, inputs) -> tuple[dict, dict]:
    """Losses and gradients."""
    losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_same_method_beside_a_detector(case: str):
    found = step(alone(), batch(case))
    expected = step(distill(tiny_gfl(), tiny_gfl(seed=1), dsi=dsi()), batch(case))
    for ours, theirs in zip(found, expected):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(gradient is not None for gradient in found[1].values())


def test_several_networks_teach_one_student():
    losses = alone(deep=dsi(), fine=dsi(stride=8, weight=2.0))(batch())
    assert {"kd_deep_loss_semantic", "kd_fine_loss_semantic"} < losses.keys()


def test_the_balance_of_methods_is_that_beside_a_detector():
    options = {"probe": 2, "period": 0, "target": 0.3, "tolerance": 0.0}
    factors = []
    for teacher in (None, tiny_gfl(seed=1)):
        model = distill(tiny_gfl(), teacher, dsi=dsi())
        torch.manual_seed(0)
        model = Distiller(
            student=tiny_gfl(), teacher=model.teacher, methods=MethodSet(dsi=dsi(), balance=options)
        )
        for _ in range(3):
            losses = model(batch())
        factors.append(model.kd.balance.factor_of("dsi"))
        assert (
            "kd.balance.factor_dsi" in model.state_dict() and "kd.iteration" in model.state_dict()
        )
        assert losses["kd_dsi_loss_semantic"].requires_grad
    assert factors[0] == factors[1] != 1


def test_under_autocast_losses_are_float32_near_full_precision_and_train():
    full, model = alone()(batch()), alone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch())
    found, expected = (each["kd_dsi_loss_semantic"] for each in (losses, full))
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected.item(), rel=0.05)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_it_trains_on_a_gpu():
    with pretended_gpu():
        model = alone(student=tiny_gfl().to("cuda"))
        losses, gradients = step(model, batch("one empty"))
        assert all(loss.isfinite() for loss in losses.values())
        assert all(isinstance(gradient, Pretended) for gradient in gradients.values())


def test_images_without_labels_are_learnt_from():
    inputs = batch()
    inputs[1][UNLABELLED] = True
    del inputs[1]["instances"]
    losses, _ = step(alone(), inputs)
    assert losses["kd_dsi_loss_semantic"] == step(alone(), batch())[0]["kd_dsi_loss_semantic"]


def test_its_checkpoint_loads_strictly_into_the_student_and_goes_on(tmp_path):
    model = alone()
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    saved = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    extra = saved.keys() - model.student.state_dict().keys()
    assert extra == {"kd.dsi.projector.weight", "kd.dsi.projector.bias"}
    bare, again = tiny_gfl(seed=5), alone(student=tiny_gfl(seed=5))
    for other in (bare, again):
        AtomicCheckpointer(other, str(tmp_path)).load(str(tmp_path / "model.pth"))
    inputs = batch()
    with torch.no_grad():
        found = [m.eval()(inputs)[0]["instances"] for m in (model, bare, again)]
    assert len(found[0]) > 0 and all(torch.equal(x.scores, found[0].scores) for x in found)
    assert torch.equal(again.kd.dsi.projector.weight, model.kd.dsi.projector.weight)


def test_a_copy_of_it_has_no_teacher_either():
    model = alone()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.teacher is None
        assert twin(batch()).keys() == model(batch()).keys()
    assert "(teacher): None" in repr(model) and model.what_is_lost() == []


READERS = [each for each in VARIANTS if not getattr(methods, each[0]).needs.network]


@pytest.mark.parametrize(("name", "variant"), READERS)
def test_a_method_that_reads_a_detector_says_so(name: str, variant: str):
    method = getattr(methods, name)(**PAIRS[name][variant].options)
    assert method.needs.detector and not dsi().needs.detector


def test_methods_that_read_a_detector_are_refused_by_name():
    with pytest.raises(DistillationError, match=r"teacher=None.*\['mgd', 'pkd'\].*as DSI does"):
        alone(dsi=dsi(), mgd=MGD(), pkd=PKD())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init_student": True}, "teacher=None, but init_student=True would.*leave it out"),
        (
            {"targets_from_teacher": True, "init_student": True},
            "init_student=True and targets_from_teacher=True.*leave them out",
        ),
    ],
)
def test_what_would_come_from_a_detector_is_refused(options: dict, said: str):
    with pytest.raises(DistillationError, match=said):
        Distiller(student=tiny_ddod(), teacher=None, methods=MethodSet(dsi=dsi()), **options)


class Counter(KDMethod):
    """Reads the ground truth, and what the test says."""

    needs = Needs(predictions=False, features=False, ground_truth=True)
    read = staticmethod(lambda teacher, step: None)

    def forward(self, student, teacher, step):
        self.read(teacher, step)
        return {"loss_count": student.features[0].mean() * len(step.ground_truth)}


def test_pseudo_labels_are_refused_and_images_without_labels_with_them():
    labels = PseudoLabels(score_thresh=0.4)
    with pytest.raises(DistillationError, match="teacher=None, but pseudo_labels would have"):
        distill(tiny_fcos(), None, Counter(), pseudo_labels=labels)
    inputs = batch()
    inputs[1][UNLABELLED] = True
    with pytest.raises(DistillationError, match="images without labels.*'feature'.*read ground tr"):
        distill(tiny_fcos(), None, Counter())(inputs)


@pytest.mark.parametrize(
    "read",
    [
        lambda teacher, step: teacher.logits,
        lambda teacher, step: teacher.map_sizes,
        lambda teacher, step: step.resume({}, 1, []),
        lambda teacher, step: step.assign(),
    ],
)
def test_a_method_that_reads_what_it_says_it_does_not_is_told_so(read):
    method = Counter()
    model = distill(tiny_fcos(), None, method)
    model(batch())
    method.read = read
    with pytest.raises(LookupError, match=r"no detector is the teacher.*needs=Needs\(predictions"):
        model(batch())


class Widened(Counter):
    def prepare(self, student, teacher):
        super().prepare(student, teacher)
        self.width = teacher.head.tower_channels[0]


def test_a_method_that_looks_at_the_detector_when_it_is_prepared_is_told_so():
    with pytest.raises(LookupError, match="no detector is the teacher"):
        distill(tiny_fcos(), None, Widened())


def test_what_stands_for_the_teacher_is_copied_as_anything():
    assert copy.copy(NO_TEACHER).__class__ is NO_TEACHER.__class__
    assert not hasattr(NO_TEACHER, "__len__")


def test_what_a_method_cannot_use_is_refused_without_naming_a_teacher():
    with pytest.raises(DistillationError, match=r"cannot distil into the student GFL: stride=64"):
        alone(dsi=dsi(stride=64))
    with pytest.raises(DistillationError, match="no parameter of the student requires gradient"):
        alone(student=tiny_gfl().requires_grad_(False))


def test_a_network_in_place_of_the_detector_is_told_where_it_belongs():
    network, bckd = feature_teacher(OneMap()), MethodSet(bckd=BCKD())
    with pytest.raises(TypeError, match="FeatureTeacher, expected .* Teacher; see .*dsi_alone.py"):
        Distiller(student=tiny_gfl(), teacher=network, methods=bckd)
