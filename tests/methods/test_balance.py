"""Weights by gradient share: the rule, what is measured, and how it goes with a training."""

from __future__ import annotations

import copy
import functools
import logging
import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from dense_kd import (
    BCKD,
    PKD,
    DistillationError,
    Distiller,
    MethodSet,
    Teacher,
    add_dense_kd_config,
)
from dense_kd.checkpoint import AtomicCheckpointer, load_strictly
from dense_kd.diagnostics.passes import training_losses
from dense_kd.engine import Trainer
from dense_kd.methods import Balance
from dense_kd.methods import balance as module
from dense_kd.methods.balance import adapted
from dense_kd.yacs_config import build_methods
from helpers.builders import batch, tiny_fcos
from helpers.method_cases import ALL, PAIRS, images_with, make_method
from helpers.script_runs import assert_equal


class Scaled(PKD):
    """PKD whose loss is multiplied by a number that no option tells."""

    def __init__(self, scale: float = 1.0, **options):
        super().__init__(**options)
        self.scale = scale

    def forward(self, student, teacher, step) -> dict[str, Tensor]:
        terms = super().forward(student, teacher, step)
        return {name: self.scale * loss for name, loss in terms.items()}


class OfObjects(Scaled):
    """It asks nothing of images without objects."""

    def forward(self, student, teacher, step) -> dict[str, Tensor]:
        objects = sum(map(len, step.ground_truth))
        self.scale = float(objects > 0)
        return super().forward(student, teacher, step)


def distiller(balance=None, **methods) -> Distiller:
    torch.manual_seed(0)
    student = tiny_fcos(loss_normalizer_momentum=0.0)  # the same of a batch, whenever it comes
    teacher = Teacher(tiny_fcos(seed=1), None)
    methods = methods or {"pkd": Scaled()}
    return Distiller(
        student=student, teacher=teacher, methods=MethodSet(balance=balance, **methods)
    )


def trainer(model: nn.Module, batches: list, lr: float = 1e-3, **options) -> Trainer:
    return Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=lr), **options)


def written(run: Trainer, what: str) -> list[tuple[float, int]]:
    histories = run.storage.histories()
    return histories[f"diag/balance_{what}"].values() if f"diag/balance_{what}" in histories else []


def test_the_rule_is_that_worked_by_hand():
    assert adapted(1.0, share=0.5, target=0.2, tolerance=0.0) == pytest.approx(0.25)
    # 0.25 of what was one half: 0.25 / (0.25 + 1)
    assert adapted(3.0, share=0.1, target=0.2, tolerance=0.05) == pytest.approx(3 * 2.25)
    assert adapted(3.0, share=0.16, target=0.2, tolerance=0.05) == 3.0  # within the band
    assert adapted(2.0, share=0.999, target=0.2, tolerance=0.05) == 0.2  # bounds of a change
    assert adapted(2.0, share=1e-9, target=0.2, tolerance=0.05) == 20.0
    assert adapted(module.FACTOR[1], share=1e-9, target=0.2, tolerance=0.05) == module.FACTOR[1]
    assert adapted(module.FACTOR[0], share=1.0, target=0.2, tolerance=0.05) == module.FACTOR[0]


def test_shares_are_of_l1_norms_at_the_pyramid_of_all_terms_of_a_method_and_no_other_method():
    taps = [("cls", 1), ("bbox", 2)]
    named = {"bckd": BCKD(), "pkd": PKD(weight=0.1), "towers": PKD(weight=1.0, taps=taps)}
    model = distiller({"target": 0.3, "tolerance": 0.0}, **named)
    plain = distiller(**named_again(named))
    passes = []
    plain.kd.register_forward_hook(lambda m, args, output: passes.append(args[0]))
    losses = plain(batch())
    (student,) = passes
    weighted = model(batch())
    for name in named:
        norms = []
        for beginning in (f"kd_{name}_", "loss_"):
            loss = sum(value for key, value in losses.items() if key.startswith(beginning))
            found = torch.autograd.grad(loss, student.features, retain_graph=True)
            norms.append(sum(g.abs().sum().item() for g in found))
        own, detection = norms
        share = own / (own + detection)
        assert model.kd.balance.share_of(name, with_factor=False) == pytest.approx(share, 1e-4)
        factor = model.kd.balance.factor_of(name)
        assert factor == pytest.approx(adapted(1.0, share, 0.3, 0.0), 1e-4) != 1.0
        assert model.kd.balance.share_of(name) == pytest.approx(0.3)
        # The pass that was measured has the factor that it gave, on all terms.
        for key in (key for key in losses if key.startswith(f"kd_{name}_")):
            torch.testing.assert_close(weighted[key], factor * losses[key])
    for key in (key for key in losses if key.startswith("loss_")):
        torch.testing.assert_close(weighted[key], losses[key])
    assert all(p.grad is None for p in model.parameters())


def test_a_gradient_that_no_relu_lets_through_does_not_count():
    taps = [("cls", 1)]
    shares = []
    for dead in (False, True):
        model = distiller({"tolerance": 0.0}, pkd=PKD(taps=taps))
        if dead:  # a channel that is 0 everywhere, of which PKD divides by a deviation of 0
            norm = model.student.head.cls_subnet[1]
            with torch.no_grad():
                norm.weight[0], norm.bias[0] = 0.0, -1.0
        kept = []
        model.kd.register_forward_hook(lambda m, args, output, kept=kept: kept.append(args[0]))
        losses = model(batch())
        finest = kept[0].taps[taps[0]][0]
        (found,) = torch.autograd.grad(losses["kd_pkd_loss_feature"], [finest], retain_graph=True)
        at_tower = found.abs().sum().item() / model.kd.balance.factor_of("pkd")
        shares.append((model.kd.balance.share_of("pkd", with_factor=False), at_tower))
    (share, norm), (share_of_dead, norm_of_dead) = shares
    assert norm_of_dead > 1000 * norm and share_of_dead == pytest.approx(share, rel=0.1)


def named_again(named: dict) -> dict:
    return {name: copy.deepcopy(method) for name, method in named.items()}


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_loss_that_is_multiplied_by_anything_ends_with_the_same_share(scale):
    options = {"probe": 7, "smoothing": 0.5}
    factors, shares = [], []
    for each in (1.0, scale):
        model = distiller(options, pkd=Scaled(each))
        run = trainer(model, [batch()] * 9, lr=1e-6)
        run.train(0, 9)
        factors.append(model.kd.balance.factor_of("pkd") * each)
        shares.append(written(run, "share_pkd")[-1][0])
    assert shares == pytest.approx([0.9, 0.9], abs=0.02)
    assert factors[1] == pytest.approx(factors[0], rel=0.2)
    assert written(run, "factor_pkd")[0][0] == pytest.approx(10 if scale < 1 else 0.1)


def test_float16_maps_hold_the_gradient_of_a_loss_of_any_weight():
    shares = []
    for weight in (1e-9, 1.0, 1e6):
        level = torch.linspace(0.1, 1, 8, dtype=torch.float16, requires_grad=True)
        loss = {"loss": weight * 0.01 * level.float().square().sum()}
        shares.append(module._norm(loss, [level]).item() / weight)
    expected = 0.02 * torch.linspace(0.1, 1, 8).sum().item()
    assert shares == pytest.approx([expected] * 3, rel=1e-2)


def test_what_has_no_gradient_keeps_its_factor_and_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(module, "UNSEEN", 2)
    model = distiller({"probe": 4, "smoothing": 0.5}, pkd=OfObjects())
    run = trainer(model, [batch("all empty")] * 3 + [batch()], lr=0.0)
    with caplog.at_level(logging.WARNING, "dense_kd"):
        run.train(0, 4)
    assert caplog.text.count("no share of method 'pkd' is known after 2 measurements") == 1
    factors = [value for value, _ in written(run, "factor_pkd")]
    assert factors[:3] == [1.0] * 3 and factors[3] != 1.0
    assert [iteration for _, iteration in written(run, "share_pkd")] == [3]
    # An empty batch is one of norm 0 in the average, not one that is left out.
    before = model.kd.balance.share_of("pkd")
    with EventStorage(0):
        model(batch("all empty"))
    assert 0 < model.kd.balance.share_of("pkd") != before


@pytest.mark.parametrize("nothing", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_what_begins_late_has_the_factor_that_it_would_have_from_the_first_iteration(nothing):
    """However long a method, or detection, has had no gradient."""
    late, early = (distiller({"tolerance": 0.0}).kd.balance for _ in range(2))
    for _ in range(60):
        late._adapt("pkd", *nothing)
    assert late.factor_of("pkd") == 1.0
    for norms in ((9.0, 1.0), (0.0, 1.0), (18.0, 1.0)):  # later zeros count
        for balance in (late, early):
            balance._adapt("pkd", *norms)
        assert late.factor_of("pkd") == early.factor_of("pkd")
        assert late._state("pkd") == early._state("pkd")
    assert late.factor_of("pkd") == pytest.approx(1.0, rel=0.5)


def test_norms_that_are_not_finite_change_nothing():
    balance = distiller({}).kd.balance
    for norms in ((math.nan, 1.0), (1.0, math.inf)):
        balance._adapt("pkd", *norms)
    assert balance.factor_of("pkd") == 1.0 and balance._state("pkd")[1] == [0.0] * 3


@pytest.mark.parametrize("name", ALL)
def test_every_method_gets_its_share_in_a_few_measurements(name):
    pair = next(iter(PAIRS[name].values()))
    torch.manual_seed(0)
    make_teacher = functools.partial(pair.build, seed=1, width=4, channels=24)
    student, teacher = pair.build(width=4), make_teacher()
    given = {"target": 0.15, "smoothing": 0.0, "tolerance": 0.0, "probe": 8}
    sets = MethodSet(feature=make_method(name, pair, make_teacher), balance=given)
    model = Distiller(student=student, teacher=Teacher(teacher, None), methods=sets)
    for _ in range(8):
        model.kd.balance.measure_next()
        with EventStorage(600):  # warm-ups are over
            losses = model(images_with([[5, 5, 40, 40], [20, 20, 60, 62]]))
        assert all(torch.isfinite(loss) for loss in losses.values())
        if model.kd.balance.share_of("feature") == pytest.approx(0.15, abs=1e-3):
            break
    assert model.kd.balance.share_of("feature") == pytest.approx(0.15, abs=1e-3)


def test_the_probe_is_measured_and_then_every_period_or_never():
    for period, expected in ((3, [0, 1, 3, 6]), (0, [0, 1])):
        model = distiller({"probe": 2, "period": period, "tolerance": 0.0})
        run = trainer(model, [batch(seed=s) for s in range(7)])
        run.train(0, 7)
        assert [iteration for _, iteration in written(run, "factor_pkd")] == expected
    fixed = model.kd.balance.factor_of("pkd")
    assert fixed == pytest.approx(written(run, "factor_pkd")[-1][0]) != 1.0


@pytest.mark.parametrize(
    "options", [{"amp_dtype": "bfloat16"}, {"normalize": "iteration", "clip_grad": {"max_norm": 1}}]
)
def test_the_first_of_accumulated_batches_is_measured_and_all_have_its_factor(options):
    model = distiller({"probe": 1, "period": 2, "tolerance": 0.0})
    seen = []
    model.kd.balance.register_forward_hook(
        lambda m, args, factors: seen.append((torch.is_grad_enabled(), factors["pkd"].item()))
    )
    run = trainer(model, [batch(seed=s) for s in range(8)], accumulate=2, **options)
    run.train(0, 4)
    used = [factor for is_pass, factor in seen if is_pass]
    assert used[0::2] == used[1::2] and used[0] == used[2] != 1.0 and used[4] != used[2]
    assert [iteration for _, iteration in written(run, "factor_pkd")] == [0, 2]


def test_a_step_that_is_left_out_changes_no_factor():
    model = distiller({"probe": 9, "tolerance": 0.0})
    bad = batch()
    run = trainer(model, [batch(), batch(seed=1), bad], skip_bad_steps=1)
    factors = []

    def spoil(module, args):
        factors.append(model.kd.balance.factor_of("pkd"))
        if len(factors) == 3:
            losses = model.student.losses
            model.student.losses = lambda *given: {
                name: loss + math.inf for name, loss in losses(*given).items()
            }

    model.register_forward_pre_hook(spoil)
    run.train(0, 3)
    assert run.skipped_steps == 1 and factors[1] != factors[2]
    assert model.kd.balance.factor_of("pkd") == factors[2]


def test_a_run_that_is_resumed_goes_on_bit_for_bit_and_the_student_has_nothing_of_it(tmp_path):
    options = {"probe": 2, "period": 2, "tolerance": 0.0}
    batches = [batch(seed=s) for s in range(5)]
    whole = trainer(distiller(options), batches)
    whole.train(0, 5)
    first = trainer(distiller(options), batches[:3])
    first.train(0, 3)
    first.iter = 2  # what a checkpoint written in that iteration holds
    AtomicCheckpointer(first.model, str(tmp_path), trainer=first).save("model_0000002")
    second = trainer(distiller(options), batches[3:])
    AtomicCheckpointer(second.model, str(tmp_path), trainer=second).resume_or_load("", resume=True)
    second.train(3, 5)
    state = second.model.state_dict()
    assert_equal(dict(whole.model.state_dict()), dict(state))
    assert state["kd.balance.factor_pkd"] != 1 and state["kd.iteration"] == 5
    student = tiny_fcos(seed=3)
    load_strictly(student, str(tmp_path / "model_0000002.pth"))
    assert not [key for key in student.state_dict() if "balance" in key]


def test_looking_at_a_run_from_outside_adapts_nothing():
    model = distiller({"probe": 9})
    model(batch())
    before = model.kd.balance.factor_of("pkd")
    losses, _ = training_losses(model, batch(seed=1))
    with torch.no_grad():
        model(batch(seed=2))
    assert model.kd.balance.factor_of("pkd") == before != 1.0
    plain, _ = training_losses(distiller(), batch(seed=1))
    torch.testing.assert_close(losses["kd_pkd_loss_feature"], before * plain["kd_pkd_loss_feature"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 1.0}, "target=1.0: expected a number between 0 and 1"),
        ({"target": {"pkd": 0.1, "b": 0.0}}, "target.b=0.0"),
        ({"tolerance": 0.2}, "tolerance=0.2: .* target=0.9"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"probe": -1}, "probe=-1"),
        ({"period": 2.5}, "period=2.5"),
        ({"probe": 0, "period": 0}, "nothing would be measured"),
        ({"targt": 0.2}, "balance has no option targt; there is target, tolerance"),
        ({"target": {"bckd": 0.1}}, r"expected a share of each of the methods \['pkd'\]"),
        (0.2, r"balance=0.2: expected Balance\(...\) or its options"),
    ],
)
def test_options_out_of_order_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        distiller(options)


def test_a_balance_belongs_to_one_set_and_has_a_target_for_each_method():
    balance = Balance(target={"a": 0.1, "b": 0.2}, tolerance=0.01)
    model = distiller(balance, a=PKD(), b=BCKD())
    assert model.kd.balance is balance and [n for n, _ in model.kd.named_methods()] == ["a", "b"]
    assert (balance.target_of("a"), balance.target_of("b")) == (0.1, 0.2)
    assert "target={'a': 0.1, 'b': 0.2}, tolerance=0.01" in repr(model.kd)
    with pytest.raises(ValueError, match="belongs to another MethodSet"):
        MethodSet(balance=balance, a=PKD(), b=BCKD())


def test_yacs_configs_have_it_too():
    cfg = get_cfg()
    add_dense_kd_config(cfg)
    assert build_methods(cfg).balance is None
    cfg.merge_from_list(["DENSE_KD.BALANCE.ENABLED", "True", "DENSE_KD.BALANCE.PROBE", "7"])
    cfg.merge_from_list(["DENSE_KD.BALANCE.TARGET", "0.2"])
    balance = build_methods(cfg).balance
    assert (balance.probe, balance.target, balance.period) == (7, 0.2, 10)
    cfg.DENSE_KD.BALANCE.TARGET = 2.0
    with pytest.raises(DistillationError, match="DENSE_KD.BALANCE: target=2.0"):
        build_methods(cfg)
