"""What a training with diagnostics writes, and that it is the training without them."""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm

from dense_kd import BCKD, PKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics import hook as module
from dense_kd.diagnostics.conflicts import conflicts
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.hook import Diagnostics
from dense_kd.engine import Trainer
from helpers.builders import batch, tiny_fcos, tiny_gfl, tiny_retinanet
from helpers.two_processes import launch_two

FCOS_NAMES = {
    *("share_detection", "share_bckd", "share_pkd", "seconds"),
    *("conflicts_per_positive", "conflicts_per_location"),
    *(f"{what}_p{level}" for what in ("agreement", "correlation") for level in (3, 4, 5)),
}


def distiller(make=tiny_fcos, teacher=None, **methods) -> Distiller:
    methods = methods or {"bckd": BCKD(), "pkd": PKD()}
    teacher = Teacher(teacher or make(seed=1), None)
    return Distiller(student=make(), teacher=teacher, methods=MethodSet(**methods))


def trained(model, batches, period: int | None, start: int = 0, **options) -> Trainer:
    inner = getattr(model, "module", model)
    optimizer = torch.optim.SGD(inner.parameters(), lr=1e-3, momentum=0.9)
    run = Trainer(model, batches, optimizer, **options)
    if period is not None:
        run.register_hooks([Diagnostics(model, period)])
    run.train(start, start + len(batches) // options.get("accumulate", 1))
    return run


def trained_once_before() -> None:
    """The first backward pass of the scripted focal loss in a process rounds otherwise than later
    ones, which it is optimised for."""
    trained(distiller(), [batch()], None)


def written(run: Trainer) -> dict[str, list[tuple[float, float]]]:
    """{name without diag/: its (value, iteration)}."""
    histories = run.storage.histories()
    return {n.removeprefix("diag/"): h.values() for n, h in histories.items() if "diag/" in n}


@pytest.mark.parametrize(
    "options", [{}, {"amp_dtype": "bfloat16"}, {"accumulate": 2, "clip_grad": {"max_norm": 1.0}}]
)
def test_training_with_it_gives_the_weights_of_training_without_bit_for_bit(options):
    batches = [batch(case, seed) for seed, case in enumerate(("usual", "all empty")) for _ in "ab"]
    trained_once_before()
    model = distiller()
    states, draws, losses = [], [], []
    for period in (None, 1):
        torch.manual_seed(5)
        run = trained(copy.deepcopy(model), batches, period, **options)
        states.append(run.model.state_dict())
        draws.append(torch.rand(1).item())
        losses.append([v for n, h in run.storage.histories().items() if "loss" in n
                       for v, _ in h.values()])  # fmt: skip
    assert len(written(run)["share_bckd"]) == len(batches) // options.get("accumulate", 1)
    assert states[0].keys() == states[1].keys() and draws[0] == draws[1]
    assert losses[0] == losses[1]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_it_measures_every_so_many_iterations_and_writes_all_it_has():
    run = trained(distiller(), [batch(seed=s) for s in range(5)], 2)
    found = written(run)
    assert set(found) == FCOS_NAMES
    assert {tuple(i for _, i in values) for values in found.values()} == {(1, 3)}
    shares = [found[name][0][0] for name in found if name.startswith("share")]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0
    assert 0 < found["agreement_p3"][0][0] <= 1 and -1 <= found["correlation_p3"][0][0] <= 1
    assert found["seconds"][0][0] > 0


def test_shares_are_those_of_the_losses_at_the_pyramid_and_at_towers_that_a_method_reads():
    taps = [("cls", 1), ("bbox", 1)]
    model = distiller(bckd=BCKD(), pkd=PKD(), towers=PKD(taps=taps), cls=PKD(taps=taps[:1]))
    reference = copy.deepcopy(model)
    passes = []
    reference.kd.register_forward_hook(lambda m, args, output: passes.append(args[0]))
    losses = reference(batch())
    (student,) = passes
    found = {name: value for name, ((value, _),) in written(trained(model, [batch()], 1)).items()}
    begin = {"detection": "loss", **{name: f"kd_{name}_" for name in model.kd._modules}}
    cls, bbox = (student.taps[tap] for tap in taps)
    expected = {}
    for key, places in (("share", student.features), ("towers", [*cls, *bbox]), ("cls", cls)):
        norms = {}
        for group, beginning in begin.items():
            loss = sum(value for name, value in losses.items() if name.startswith(beginning))
            gradients = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True)
            squares = [g.double().square().sum().item() for g in gradients if g is not None]
            norms[group] = math.sqrt(sum(squares))
        if key == "share":
            expected.update({f"share_{n}": norm / sum(norms.values()) for n, norm in norms.items()})
        else:
            expected[f"tower_share_{key}"] = norms[key] / sum(norms.values())
    assert {name: found[name] for name in found if "share" in name} == pytest.approx(expected, 1e-5)
    assert abs(found["tower_share_cls"] - found["share_cls"]) > 0.1  # they are not the same


def test_conflicts_are_divided_by_the_positives_and_by_all_locations():
    model = distiller(pkd=PKD())
    counted = []

    def keep(kd, args, output) -> None:
        student, teacher, step = args
        counted.append(conflicts(student, teacher, step.targets, thresholds=[0.5]))

    model.kd.register_forward_hook(keep)
    found = written(trained(model, [batch()], 1))
    (count,) = counted
    (above,), positives, locations = count.above, count.positives, count.locations
    assert found["conflicts_per_positive"] == [(above / positives, 0)]
    assert found["conflicts_per_location"] == [(above / locations, 0)]
    assert 0 < above < locations == 2 * (144 + 36 + 9)


def test_what_is_not_defined_is_left_out(monkeypatch):
    found = written(trained(distiller(), [batch("all empty")], 1))
    assert set(found) == FCOS_NAMES - {"conflicts_per_positive"}  # there is none
    nothing = lambda losses, places, *_: {p: dict.fromkeys(losses, 0.0) for p in places}  # noqa: E731
    monkeypatch.setattr(module, "norms_at_places", nothing)
    found = written(trained(distiller(), [batch("one empty")], 1))
    assert not any("share" in name for name in found) and "conflicts_per_positive" in found


def test_a_teacher_with_other_anchors_is_compared_by_location():
    model = distiller(teacher=tiny_retinanet(seed=1), pkd=PKD())
    assert set(written(trained(model, [batch()], 1))) == FCOS_NAMES - {"share_bckd"}


def test_classes_that_cannot_be_compared_are_said_once_and_shares_are_measured(caplog):
    model = distiller(tiny_gfl, teacher=tiny_gfl(seed=1, num_classes=6), pkd=PKD())
    with caplog.at_level(logging.WARNING):
        found = written(trained(model, [batch(), batch()], 1))
    assert set(found) == {"share_detection", "share_pkd", "seconds"}
    assert caplog.text.count("Agreement and conflicts are not measured: which classes") == 1


@pytest.mark.parametrize(
    "weight, said", [(1e-6, "hardly teaches it anything"), (1e6, "hardly learns anything else")]
)
def test_a_share_that_is_extreme_for_long_is_warned_of_once(weight, said, monkeypatch, caplog):
    monkeypatch.setattr(module, "LONG", 2)
    model = distiller(pkd=PKD(weight=weight, warmup_iters=2))
    run = Trainer(model, [batch()] * 5, torch.optim.SGD(model.parameters(), lr=0.0))
    run.register_hooks([Diagnostics(model, 1)])
    with caplog.at_level(logging.WARNING, "dense_kd"):
        run.train(0, 3)  # two of the warm-up, and one
        assert said not in caplog.text
    run = Trainer(model, [batch()] * 5, torch.optim.SGD(model.parameters(), lr=0.0))
    run.register_hooks([Diagnostics(model, 1)])
    with caplog.at_level(logging.WARNING, "dense_kd"):
        run.train(2, 6)
    assert caplog.text.count(said) == 1
    assert "method 'pkd' (PKD) has had" in caplog.text and "model.methods.pkd" in caplog.text


def test_a_share_is_judged_by_measurements_from_before_a_resumption_and_warned_of_once(
    monkeypatch, caplog
):
    monkeypatch.setattr(module, "LONG", 2)
    model = distiller(pkd=PKD(weight=1e-6))
    state = None
    for start, said in ((0, 0), (1, 1), (2, 1), (3, 1)):
        run = Trainer(model, [batch()], torch.optim.SGD(model.parameters(), lr=0.0))
        run.register_hooks([Diagnostics(model, 1)])
        if state is not None:
            run.load_state_dict(state)
        with caplog.at_level(logging.WARNING, "dense_kd"):
            run.train(start, start + 1)
        state = run.state_dict()
        assert caplog.text.count("hardly teaches it anything") == said
    assert state["hooks"]["Diagnostics"]["warned"] == ["pkd"]


def test_its_cost_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, "dense_kd"):
        trained(distiller(), [batch()] * 3, 1)
        assert caplog.text.count("of a step; every 1 iterations that is") == 1
        trained(distiller(), [batch()], 1)
    assert caplog.text.count("of a step; every 1 iterations that is") == 2


def test_no_measurement_is_kept_after_its_cost_was_logged():
    model = distiller()
    run = Trainer(model, [batch()] * 4, torch.optim.SGD(model.parameters(), lr=0.0))
    hook = Diagnostics(model, 1)
    run.register_hooks([hook])
    run.train(0, 4)
    assert len(hook._costs) == 2


def test_nothing_is_left_on_the_model_between_measurements():
    model = distiller()
    trained(model, [batch()] * 2, 2)
    assert not model._forward_hooks and not model.kd._forward_hooks


def test_a_teacher_that_is_not_finite_is_said_to_be_the_cause():
    model = distiller(pkd=PKD())
    with torch.no_grad():
        model.teacher.model.head.cls_score.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the teacher's pass over a batch is not finite"):
        trained(model, [batch()], 1)


def test_a_model_that_is_no_distiller_and_a_period_of_nothing_are_refused():
    with pytest.raises(DiagnosticsError, match="the model is a FCOS; expected a Distiller"):
        Diagnostics(tiny_fcos(), 1)
    with pytest.raises(ValueError, match="period=0: expected a whole number of at least 1"):
        Diagnostics(distiller(), 0)
    with pytest.raises(DiagnosticsError, match="give it another name"):
        Diagnostics(distiller(detection=PKD()), 1)


def two_batches(rank: int) -> list:
    return [[batch("usual", seed=3 * rank)[0]], [batch("all empty", seed=rank)[0]]]


def worker(output: str) -> None:
    rank = comm.get_rank()
    trained_once_before()
    for period in (None, 1):
        model = create_ddp_model(
            distiller(), device_ids=None, find_unused_parameters=False, broadcast_buffers=False
        )
        run = trained(model, two_batches(rank), period)
        torch.save(model.module.state_dict(), Path(output, f"state_{period}_{rank}.pth"))
        Path(output, f"written_{period}_{rank}.json").write_text(json.dumps(written(run)))


@pytest.mark.slow
def test_two_processes_write_their_mean_and_train_as_without_it(tmp_path):
    launch_two(worker, tmp_path)
    for rank in range(2):
        without, measured = (
            torch.load(tmp_path / f"state_{period}_{rank}.pth", weights_only=True)
            for period in (None, 1)
        )
        assert all(torch.equal(value, measured[name]) for name, value in without.items())
    assert json.loads((tmp_path / "written_1_1.json").read_text()) == {}
    found = json.loads((tmp_path / "written_1_0.json").read_text())
    alone = [written(trained(distiller(), two_batches(rank)[:1], 1)) for rank in range(2)]
    for name in FCOS_NAMES - {"seconds", "conflicts_per_positive"}:
        mean = (alone[0][name][0][0] + alone[1][name][0][0]) / 2
        assert found[name][0][0] == pytest.approx(mean, rel=1e-4), name
    # The second has no positive.
    assert [iteration for _, iteration in found["conflicts_per_positive"]] == [0]
