"""Several teachers for one student: the losses of each, when each teaches, and what is refused."""

from __future__ import annotations

import copy
import pickle
from unittest import mock

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor

from dense_kd import (
    BCKD,
    DSI,
    FGD,
    PKD,
    CrossKD,
    DistillationError,
    Distiller,
    FromTeacher,
    KDMethod,
    MethodSet,
    PseudoLabels,
    Teacher,
)
from dense_kd.checkpoint import CheckpointError
from dense_kd.data.unlabelled import UNLABELLED
from dense_kd.methods import Needs
from helpers.builders import CASES, batch, tiny_atss, tiny_fcos, tiny_gfl, tiny_retinanet
from helpers.feature_cases import distill
from helpers.feature_networks import feature_teacher

Losses = dict[str, Tensor]


def other(method: KDMethod | None = None, teacher=None, **options) -> FromTeacher:
    """A method with a teacher that is wider than the student."""
    detector = tiny_gfl(seed=2, channels=24) if teacher is None else teacher
    own = detector if isinstance(detector, Teacher) else Teacher(detector, None)
    return FromTeacher(teacher=own, method=method or FGD(), **options)


def step(model: Distiller, inputs, iteration: int = 0) -> tuple[Losses, Losses]:
    """Losses of the methods, and the gradients of all losses."""
    with EventStorage(iteration):
        losses = model(inputs)
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {k: v.detach() for k, v in losses.items() if k.startswith("kd_")}, gradients


def runs(teacher: Teacher) -> mock.MagicMock:
    """What counts the passes of a teacher."""
    return mock.patch.object(teacher.model, "pyramid", wraps=teacher.model.pyramid)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_and_gradients_are_those_of_distillers_with_these_teachers(case, autocast):
    others = {
        "crosskd": (lambda: CrossKD(depth=1), lambda: tiny_atss(seed=3, num_classes=7)),
        "fgd": (FGD, lambda: tiny_gfl(seed=2, channels=24)),
    }
    inputs = batch(case)
    model = distill(
        tiny_gfl(),
        tiny_gfl(seed=1),
        bckd=BCKD(),
        **{name: other(make(), teacher()) for name, (make, teacher) in others.items()},
    )
    alone = {"bckd": distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD())}
    for name, (make, teacher) in others.items():
        alone[name] = distill(tiny_gfl(), teacher(), **{name: make()})
        ours, theirs = getattr(model.kd, name).method, getattr(alone[name].kd, name)
        theirs.load_state_dict(ours.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = model(inputs)
        each = {name: one(inputs) for name, one in alone.items()}
    found = {k: v for k, v in losses.items() if k.startswith("kd_")}
    expected = {k: v for of in each.values() for k, v in of.items() if k.startswith("kd_")}
    assert found.keys() == expected.keys() and len(found) > 5
    assert all(torch.equal(loss, expected[key]) for key, loss in found.items())
    sum(found.values()).backward()
    sum(expected.values()).backward()
    for name, one in alone.items():
        ours, theirs = getattr(model.kd, name), getattr(one.kd, name)
        for (key, p), q in zip(ours.named_parameters(), theirs.parameters()):
            torch.testing.assert_close(p.grad, q.grad, msg=key)
    assert all(p.grad is None for t in model.teachers.values() for p in t.model.parameters())
    students = [model.student, *(one.student for one in alone.values())]
    for p, *of_each in zip(*(student.parameters() for student in students)):
        grads = [q.grad for q in of_each if q.grad is not None]
        assert (p.grad is None) == (grads == [])
        if grads:
            tolerance = 0.05 if autocast else 1e-4  # sums in another order, here of bfloat16
            assert (p.grad - sum(grads)).norm() <= tolerance * sum(grads).norm() + 1e-6


def test_no_teacher_of_the_distiller_is_needed_and_what_it_gives_is_not_asked_for():
    alone = distill(tiny_gfl(), None, other=other(CrossKD(depth=1)))
    beside = distill(tiny_gfl(), tiny_fcos(seed=1), other=other(CrossKD(depth=1)))
    (losses, _), (expected, _) = step(alone, batch()), step(beside, batch())
    assert losses.keys() == expected.keys() == {"kd_other_loss_cls", "kd_other_loss_loc"}
    assert all(torch.equal(loss, expected[key]) for key, loss in losses.items())
    kd = alone.kd
    assert (kd.reads_predictions, kd.reads_features, kd.reads_detector) == (False, False, [])
    assert kd.taps == () and kd.taps_of_student == (("cls", 1), ("bbox", 1))
    assert list(alone.teachers) == ["methods.other.teacher"]
    assert list(beside.teachers) == ["teacher", "methods.other.teacher"]


def test_it_needs_of_images_what_the_method_inside_does():
    for method in (PKD(), BCKD(), CrossKD(depth=1)):
        needs = FromTeacher(method=method).needs
        assert needs.ground_truth == method.needs.ground_truth and not needs.detector
        assert needs.student_taps == method.needs.taps and needs.network
    assert other(CrossKD(depth=1)).unlike_one_batch() == CrossKD(depth=1).unlike_one_batch()


def test_a_teacher_of_other_images_is_shown_them():
    def teacher():
        rgb = {"input_format": "RGB", "pixel_mean": [127.5] * 3, "pixel_std": [64.0] * 3}
        return tiny_fcos(seed=1, **rgb)

    found = distill(tiny_fcos(), tiny_fcos(seed=3), a=PKD(), other=other(PKD(), teacher()))
    expected = distill(tiny_fcos(), teacher(), other=PKD())
    key = "kd_other_loss_feature"
    losses = found(batch())
    assert torch.equal(losses[key], expected(batch())[key]) and losses[key] > 0
    assert losses[key] != losses["kd_a_loss_feature"]


def test_its_teacher_is_in_no_state_and_shared_by_copies_and_the_adapters_are_the_methods_own():
    model = distill(tiny_gfl(), None, other=other())
    student = model.student.state_dict().keys()
    extra = model.state_dict().keys() - student
    assert extra and all(key.startswith("kd.other.method.") for key in extra)
    teacher = model.kd.other.teacher
    parameters = {id(p) for p in model.parameters()}
    assert not parameters & {id(p) for p in teacher.model.parameters()}
    assert copy.deepcopy(model).kd.other.teacher is teacher
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(
        step(twin, batch())[0]["kd_other_loss_bg"], step(model, batch())[0]["kd_other_loss_bg"]
    )
    assert "teacher=Teacher(GFL" in repr(model)


def test_its_file_is_read_before_the_first_step_and_a_missing_one_is_named(tmp_path):
    detector = tiny_gfl(seed=2, channels=24)
    torch.save({"model": detector.state_dict()}, tmp_path / "teacher.pth")
    expected = step(distill(tiny_gfl(), None, other=other(teacher=detector)), batch())[0]
    file = Teacher(tiny_gfl(seed=9, channels=24), str(tmp_path / "teacher.pth"))
    model = distill(tiny_gfl(), None, other=other(teacher=file))
    assert not file.loaded
    model.prepare_training()
    assert file.loaded
    for key, loss in step(model, batch())[0].items():
        assert torch.equal(loss, expected[key])
    missing = Teacher(tiny_gfl(), str(tmp_path / "none.pth"))
    with pytest.raises(CheckpointError, match="none.pth"):
        distill(tiny_gfl(), None, other=other(teacher=missing)).load_teacher()


def test_its_cache_is_used_and_told_of():
    cached = Teacher(tiny_gfl(seed=2, channels=24), None, cache="memory")
    model = distill(tiny_gfl(), None, other=other(teacher=cached))
    with runs(cached) as passes:
        first, again = (step(model, batch())[0] for _ in range(2))
    assert passes.call_count == 1 and cached.cache.found == 2
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert model.what_is_lost() == [mock.ANY] and "cache" in model.what_is_lost()[0]


def test_outside_of_its_iterations_it_is_not_run_and_its_parameters_have_a_gradient_of_0():
    model = distill(tiny_gfl(), None, other=other(first_iter=2, last_iter=4), pkd=other(PKD()))
    with runs(model.kd.other.teacher) as passes:
        for iteration in range(6):
            model.zero_grad()
            losses, gradients = step(model, batch(), iteration)
            own = {key for key in losses if key.startswith("kd_other_")}
            trained = {n for n, p in model.named_parameters() if p.requires_grad}
            assert gradients.keys() == trained
            of_method = [g for n, g in gradients.items() if n.startswith("kd.other.")]
            if 2 <= iteration < 4:
                assert "kd_other_loss_rest" not in own and len(own) > 1
                assert any(g.abs().max() > 0 for g in of_method)
            else:
                assert own == {"kd_other_loss_rest"} and losses["kd_other_loss_rest"] == 0
                assert all(g.abs().max() == 0 for g in of_method)
    assert passes.call_count == 2


def test_without_parameters_there_is_no_loss_outside():
    model = distill(tiny_gfl(), None, a=other(CrossKD(depth=1), tiny_gfl(seed=2), last_iter=1))
    assert step(model, batch(), 0)[0] and step(model, batch(), 1)[0] == {}


def test_one_teacher_follows_another():
    first, second = Teacher(tiny_gfl(seed=2), None), Teacher(tiny_gfl(seed=3), None)
    model = distill(
        tiny_gfl(),
        None,
        first=other(BCKD(), first, last_iter=2),
        second=other(BCKD(), second, first_iter=2),
    )
    assert model.kd.depends_on_iteration
    for iteration in range(4):
        losses = step(model, batch(), iteration)[0]
        name, seed = ("first", 2) if iteration < 2 else ("second", 3)
        expected = step(distill(tiny_gfl(), tiny_gfl(seed=seed), bckd=BCKD()), batch())[0]
        assert {key.split("_")[1] for key in losses} == {name}
        assert losses[f"kd_{name}_loss_loc"] > 0
        assert len(losses) == len(expected)


def test_a_plain_loop_counts_its_iterations_and_goes_on_from_a_checkpoint():
    def model():
        return distill(tiny_gfl(), None, other=other(PKD(), tiny_gfl(seed=2), first_iter=2))

    def names(distiller, optimizer, number: int) -> list[bool]:
        found = []
        for _ in range(number):
            losses = distiller(batch())
            found.append("kd_other_loss_feature" in losses)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        return found

    one = model()
    assert names(one, torch.optim.SGD(one.parameters(), lr=1e-4), 2) == [False, False]
    state = one.state_dict()
    assert state["kd.iteration"] == 2
    resumed = model()
    resumed.load_state_dict(state)
    assert names(resumed, torch.optim.SGD(resumed.parameters(), lr=1e-4), 1) == [True]


def test_a_warm_up_of_the_method_inside_begins_with_its_teacher():
    def losses(iteration: int, **options) -> Tensor:
        method = other(PKD(warmup_iters=4), tiny_gfl(seed=2), **options)
        return step(distill(tiny_gfl(), None, other=method), batch(), iteration)[0][
            "kd_other_loss_feature"
        ]

    full = losses(100)
    for iteration, share in ((0, 0.25), (1, 0.5), (3, 1.0)):
        torch.testing.assert_close(losses(iteration), share * full)
        torch.testing.assert_close(losses(10 + iteration, first_iter=10), share * full)


def test_its_weight_sets_itself_from_where_it_begins():
    methods = {
        "early": other(PKD(), tiny_gfl(seed=2)),
        "late": other(PKD(), tiny_gfl(seed=3), first_iter=3),
    }
    balance = {"target": 0.3, "tolerance": 0.0, "probe": 2, "period": 0, "smoothing": 0.5}
    model = Distiller(
        student=tiny_gfl(), teacher=None, methods=MethodSet(**methods, balance=balance)
    )
    factors = []
    for iteration in range(7):
        step(model, batch(), iteration)
        factors.append([model.kd.balance.factor_of(name) for name in methods])
    late = [factor for _, factor in factors]
    assert late[:3] == [1.0] * 3 and late[3] != 1.0 and late[5] == late[6]
    assert model.kd.balance.share_of("late") == pytest.approx(0.3, abs=0.05)
    early = [factor for factor, _ in factors]
    assert early[0] != 1.0 and early[2] == early[1]


def test_a_broken_teacher_stops_the_run_and_its_method_is_named():
    model = distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), other=other(PKD()))
    with torch.no_grad():
        model.kd.other.teacher.model.backbone.fpn_output3.bias.fill_(float("nan"))
    losses = model(batch())
    assert all(loss.isnan() for key, loss in losses.items() if key.startswith("kd_"))
    said = "teacher's pass.*features of the teacher that method 'other' brings along"
    with pytest.raises(FloatingPointError, match=said):
        sum(losses.values()).backward()


def test_images_without_labels_teach_by_it_and_pseudo_labels_are_those_of_the_other_teacher():
    inputs = batch()
    inputs[1][UNLABELLED] = True
    del inputs[1]["instances"]
    model = distill(tiny_gfl(), None, other=other(PKD()))
    assert torch.equal(
        model(inputs)["kd_other_loss_feature"], model(batch())["kd_other_loss_feature"]
    )
    with pytest.raises(DistillationError, match="images without labels.*'other'.*read ground tr"):
        distill(tiny_gfl(), None, other=other(FGD()))(inputs)
    labels = PseudoLabels(score_thresh=0.4)
    with pytest.raises(DistillationError, match="teacher=None, but pseudo_labels would have"):
        distill(tiny_gfl(), None, other=other(FGD()), pseudo_labels=labels)
    losses = distill(tiny_gfl(), tiny_gfl(seed=1), other=other(FGD()), pseudo_labels=labels)(inputs)
    assert losses["kd_other_loss_fg"].isfinite()


def padded_to(multiple: int):
    teacher = tiny_gfl(seed=2)
    teacher.backbone._size_divisibility = multiple
    return teacher


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FromTeacher(method=PKD()), r"no teacher \(teacher=None\); give .*two_teachers.py"),
        (lambda: FromTeacher(teacher=Teacher(tiny_gfl(), None)), r"no method \(method=None\)"),
        (
            lambda: other(BCKD(), tiny_retinanet(seed=2)),
            r"method 'feature' \(FromTeacher\) cannot distil into the student GFL: BCKD from its "
            r"teacher RetinaNet \(weights None\): it compares predictions one to one.*its options",
        ),
        (
            lambda: other(PKD(), padded_to(64)),
            "PKD from its teacher GFL .*: the student's backbone pads a batch to multiples of 32",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused_when_the_distiller_is_built(make, said):
    with pytest.raises(DistillationError, match=f"(?s){said}"):
        distill(tiny_gfl(), tiny_gfl(seed=1), make())


def test_a_teacher_that_shares_a_part_of_the_student_is_refused():
    student, teacher = tiny_gfl(), tiny_gfl(seed=2)
    student.backbone = teacher.backbone
    with pytest.raises(DistillationError, match="PKD from its teacher GFL.*are the same or share"):
        distill(student, None, other(PKD(), teacher))


def test_a_method_in_two_places_is_refused():
    shared = PKD()
    with pytest.raises(DistillationError, match="'a' and 'b' share one method.*a PKD of its own"):
        MethodSet(a=other(shared), b=other(shared, tiny_gfl(seed=3)))
    with pytest.raises(DistillationError, match="'a' and 'b' share one method"):
        MethodSet(a=shared, b=other(shared))
    used = FGD()
    distill(tiny_gfl(), None, other=other(used))
    with pytest.raises(DistillationError, match="its FGD has parameters and belongs to another"):
        distill(tiny_gfl(), None, other=other(used))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": feature_teacher()}, "expected a Teacher, as in .*a FeatureTeacher is for DSI"),
        ({"method": MethodSet(pkd=PKD())}, r"(?s)method=MethodSet.*expected one method"),
        ({"method": DSI(teacher=feature_teacher())}, "method=DSI: it reads no detector"),
        ({"method": FromTeacher(method=PKD())}, "method=FromTeacher: it reads no detector"),
        ({"first_iter": -1}, "first_iter=-1: expected a whole number of at least 0"),
        ({"first_iter": 5, "last_iter": 5}, "last_iter=5: expected a whole number of at least 6"),
    ],
)
def test_options_that_cannot_be_say_what_is_expected(options, said):
    with pytest.raises(ValueError, match=said):
        FromTeacher(**options)


class Reader(KDMethod):
    """Reads predictions that it says it does not read."""

    needs = Needs(predictions=False)

    def forward(self, student, teacher, step):
        return {"loss_read": student.features[0].mean() * teacher.logits[0].sum()}


def test_of_its_teacher_is_run_what_the_method_inside_says_it_reads():
    with pytest.raises(LookupError, match="without predictions"):
        distill(tiny_gfl(), None, other=other(Reader()))(batch())
