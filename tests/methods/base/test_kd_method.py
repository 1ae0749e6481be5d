"""The contract between methods, student and teacher."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from dense_kd import BCKD, DistillationError, Distiller, KDMethod, MethodSet, Teacher
from dense_kd.methods import Needs
from helpers.builders import batch, tiny_fcos, tiny_retinanet
from helpers.feature_cases import distill


class TowerDifference(KDMethod):
    """A method with taps and a parameter: the mean squared difference of two tower features."""

    needs = Needs(taps=(("cls", 1), ("bbox", 2)))

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, student, teacher, step) -> dict[str, Tensor]:
        return {
            branch: self.factor
            * sum(
                (s - t).square().mean()
                for s, t in zip(student.taps[branch, depth], teacher.taps[branch, depth])
            )
            for branch, depth in self.needs.taps
        }


class NeedsDistribution(TowerDifference):
    needs = Needs(distribution=True)


def test_losses_are_named_after_the_method_and_the_term():
    distiller = distill(tiny_fcos(), tiny_fcos(seed=1), a=BCKD(), b=TowerDifference())
    losses = distiller(batch())
    assert {key for key in losses if key.startswith("kd_")} == {
        "kd_a_loss_cls", "kd_a_loss_loc", "kd_b_cls", "kd_b_bbox",
    }  # fmt: skip


def test_one_class_can_be_used_twice_and_its_losses_add_up():
    student, teacher = tiny_fcos(), tiny_fcos(seed=1)
    losses = distill(student, teacher, once=BCKD(), twice=BCKD(cls_weight=2.0))(batch())
    torch.testing.assert_close(losses["kd_twice_loss_cls"], 2 * losses["kd_once_loss_cls"])
    torch.testing.assert_close(losses["kd_twice_loss_loc"], losses["kd_once_loss_loc"])


def test_taps_are_filled_for_both_and_only_those_asked_for():
    seen = {}

    class Look(TowerDifference):
        def forward(self, student, teacher, step):
            seen.update(student=student, teacher=teacher, step=step)
            return super().forward(student, teacher, step)

    distill(tiny_fcos(), tiny_fcos(seed=1), look=Look())(batch())
    for role in ("student", "teacher"):
        assert set(seen[role].taps) == {("cls", 1), ("bbox", 2)}
        assert [t.shape[1] for t in seen[role].taps["cls", 1]] == [16, 16, 16]
    assert not any(t.requires_grad for t in seen["teacher"].taps["cls", 1])
    assert seen["step"].iteration == 0 and len(seen["step"].ground_truth) == 2


def test_parameters_of_a_method_are_trained_and_saved_under_its_name():
    distiller = distill(tiny_fcos(), tiny_fcos(seed=1), look=TowerDifference())
    assert "kd.look.factor" in distiller.state_dict()
    sum(distiller(batch()).values()).backward()
    assert distiller.kd.look.factor.grad.abs() > 0


def test_a_set_without_a_method_is_refused():
    with pytest.raises(DistillationError, match="no method"):
        MethodSet()


def test_what_is_not_a_method_is_refused_by_name():
    with pytest.raises(DistillationError, match="'bckd' is a Linear"):
        MethodSet(bckd=nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["forward", "training", "taps"])
def test_a_name_that_hides_something_is_refused(name):
    with pytest.raises(DistillationError, match=name):
        MethodSet(**{name: BCKD()})


def test_two_methods_with_the_same_loss_key_are_refused():
    class Terms(TowerDifference):
        term = "c"

        def forward(self, student, teacher, step):
            return {self.term: self.factor}

    a, b = Terms(), Terms()
    a.term = "b_c"  # kd_a_b_c of both
    with pytest.raises(DistillationError, match="kd_a_b_c"):
        distill(tiny_fcos(), tiny_fcos(seed=1), a=a, a_b=b)(batch())


MISMATCHES = {
    "number of classes": (
        lambda: (tiny_fcos(), tiny_fcos(num_classes=7)),
        BCKD,
        r"num_classes=4 .* teacher 7",
    ),
    "level strides": (
        lambda: (tiny_fcos(num_levels=3), tiny_fcos(num_levels=5)),
        BCKD,
        r"level strides \[8, 16, 32\] .* teacher \[8, 16, 32, 64, 128\]",
    ),
    "anchors per location": (
        lambda: (tiny_fcos(), tiny_retinanet()),
        BCKD,
        "anchors per location 1 and the teacher 6",
    ),
    "anchors": (
        lambda: (
            tiny_retinanet(),
            tiny_retinanet(
                anchor_generator=DefaultAnchorGenerator(
                    sizes=[[32.0, 48.0], [64.0, 96.0], [128.0, 192.0]],
                    aspect_ratios=[0.5, 1.0, 2.0],
                    strides=[8, 16, 32],
                )
            ),
        ),
        BCKD,
        "anchors differ: at the first cell of level 0",
    ),
    "tower depth": (
        lambda: (tiny_fcos(depth=2), tiny_fcos(depth=1)),
        TowerDifference,
        r"tap \('bbox', 2\)",
    ),
    "distribution": (
        lambda: (tiny_fcos(), tiny_fcos()),
        NeedsDistribution,
        "student's FCOS predicts none",
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_a_need_that_cannot_be_met_is_an_error_when_the_distiller_is_built(what):
    build, method, message = MISMATCHES[what]
    student, teacher = build()
    with pytest.raises(DistillationError, match=message) as error:
        Distiller(
            student=student,
            teacher=Teacher(teacher, "teacher.pth"),
            methods=MethodSet(first=method()),
        )
    for part in ("'first'", method.__name__, type(student).__name__, "teacher.pth"):
        assert part in str(error.value)


def test_losses_rise_linearly_over_the_warm_up():
    plain = distill(tiny_fcos(), tiny_fcos(seed=1), bckd=BCKD())
    warm = distill(tiny_fcos(), tiny_fcos(seed=1), bckd=BCKD(warmup_iters=4))
    for iteration, factor in ((0, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)):
        losses = []
        for model in (plain, warm):
            model.student.loss_normalizer.fill_(300.0)
            with EventStorage(iteration):
                losses.append(model(batch()))
        for key, loss in losses[0].items():
            expected = loss * (factor if key.startswith("kd_") else 1)
            assert torch.allclose(losses[1][key], expected), key
    with pytest.raises(ValueError, match="warmup_iters=-1"):
        BCKD(warmup_iters=-1)


def test_the_options_of_a_method_are_printed_with_it():
    text = repr(MethodSet(box=BCKD(cls_weight=0.0, loc_loss="iou", warmup_iters=3)))
    for option in ("cls_weight=0.0", "loc_weight=", "loc_loss='iou'", "warmup_iters=3"):
        assert option in text, text
