"""Two processes on the CPU, with gloo and ``find_unused_parameters=False``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from dense_kd import BCKD, FGFI, KD, LD, Distiller, MethodSet, PseudoLabels, Teacher
from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.detectors import DDOD, MobileNetV2
from dense_kd.engine import Trainer
from helpers.builders import (
    assert_close,
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow


def long_trained_ddod(**options) -> DDOD:
    """The counts of DDOD are local: here they are so large that a batch changes no weight."""
    model = tiny_ddod(**options)
    model.level_positives[0] = torch.tensor([4, 3, 1]) * 10**9
    return model


MODELS = {
    "retinanet": lambda **kw: tiny_retinanet(**kw),
    # Synchronised normalisers: a positive counts the same wherever it is.
    "fcos": lambda **kw: tiny_fcos(
        loss_normalizer_momentum=0.0,
        loss_normalizer_sync=True,
        box_loss_weighting="centerness",
        **kw,
    ),
    "atss": lambda **kw: tiny_atss(**kw),
    "ddod": lambda **kw: long_trained_ddod(**kw),
    "gfl": lambda **kw: tiny_gfl(**kw),
    "atss with distributions": lambda **kw: tiny_atss(head={"reg_max": 8}, **kw),
    "autoassign": lambda **kw: tiny_autoassign(**kw),
}
# Which images each rank gets; the ranks have unequal numbers of objects.
CASES = {
    "usual": (lambda: [batch("usual")[0]], lambda: [batch("usual", seed=3)[0]]),
    "rank 1 is empty": (lambda: [batch("usual")[0]], lambda: [batch("all empty", seed=3)[0]]),
    "all empty": (lambda: [batch("all empty")[0]], lambda: [batch("all empty", seed=3)[0]]),
}


def distiller(name: str, pseudo_labels: PseudoLabels | None = None) -> Distiller:
    student, teacher = MODELS[name](), MODELS[name](seed=1)
    # Levels without positives are skipped by the local batch only: compare without that rule.
    methods = {"bckd": BCKD(skip_empty_levels=False), "kd": KD()}
    if student.predicts_distribution:  # the class term of LD is a mean over the local batch
        methods["ld"] = LD(cls_weight=0.0, normalize="images")
    return Distiller(
        student=student,
        teacher=Teacher(teacher, None),
        methods=MethodSet(**methods),
        pseudo_labels=pseudo_labels,
    )


def worker(output: str) -> None:
    for name in MODELS:
        for case in CASES:
            train(name, case, Path(output))
    for name in UNLABELLED:
        train_unlabelled(name, Path(output))
    normalise(Path(output, f"norm_{comm.get_rank()}.pth"))
    accumulate(Path(output, f"accumulated_{comm.get_rank()}.pth"))


UNLABELLED = ("fcos", "ddod", "gfl")


def labelled_and_not() -> tuple[list, list]:
    """Images of the ranks: of the second, nobody knows the labels."""
    bare = [{"image": batch("usual", seed=s)[0]["image"], "unlabelled": True} for s in (4, 5)]
    return [batch("usual", seed=s)[0] for s in (0, 3)], bare


def train_unlabelled(name: str, output: Path) -> None:
    """One pass of ranks of which one has no labelled image."""
    model = create_ddp_model(
        distiller(name, PseudoLabels(score_thresh=0.21)),
        device_ids=None, find_unused_parameters=False, broadcast_buffers=False,
    )  # fmt: skip
    with EventStorage():
        losses = model(labelled_and_not()[comm.get_rank()])
    sum(losses.values()).backward()
    content = {
        "losses": {key: loss.detach() for key, loss in losses.items()},
        "gradients": {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad},
    }
    torch.save(content, output / f"{name}_unlabelled_{comm.get_rank()}.pth")


def with_rules_of_batches() -> Distiller:
    """Its counts are local by themselves, and one method looks at levels of the batch."""
    student, teacher = (tiny_retinanet(seed=s, loss_normalizer_momentum=0.0) for s in (0, 1))
    methods = MethodSet(bckd=BCKD(), kd=KD(), fgfi=FGFI(warmup_iters=0))
    torch.manual_seed(0)
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)


def accumulate(output: Path) -> None:
    """An iteration of two unlike batches, normalised together."""
    model = create_ddp_model(
        with_rules_of_batches(), device_ids=None, find_unused_parameters=False,
        broadcast_buffers=False,
    )  # fmt: skip
    batches = [CASES[case][comm.get_rank()]() for case in ("usual", "rank 1 is empty")]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = Trainer(model, batches, optimizer, accumulate=2, normalize="iteration")
    trainer.train(0, 1)
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    losses = {k: v for k, (v, _) in trainer.storage.latest().items() if "loss" in k}
    torch.save({"losses": losses, "gradients": gradients}, output)


def train(name: str, case: str, output: Path) -> None:
    rank = comm.get_rank()
    model = create_ddp_model(
        distiller(name), device_ids=None, find_unused_parameters=False, broadcast_buffers=False
    )
    assert not any("teacher" in key for key in model.module.state_dict())
    of_teacher = {id(p) for p in model.module.teacher.model.parameters()}
    assert not of_teacher & {id(p) for p in model.parameters()}
    with EventStorage():
        losses = model(CASES[case][rank]())
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    content = {
        "losses": {k: v.detach() for k, v in losses.items()},
        "gradients": gradients,
        "buffers": dict(model.module.student.named_buffers()),
    }
    torch.save(content, output / f"{name}_{case}_{rank}.pth")
    if case == "usual":  # a rank without objects is what a run of several steps may stop at
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = Trainer(model, [CASES[case][rank]()] * 4, optimizer, accumulate=2)
    trainer.train(0, 2)
    AtomicCheckpointer(model, str(output), trainer=trainer).save(f"model_{name}_{case}")
    comm.synchronize()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Both processes run every model and case once."""
    return run_in_two_processes(worker, tmp_path_factory)


def assert_gradients_are_those_of(model: nn.Module, ranks: list) -> None:
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            for rank in ranks:
                # Sums in another order round in proportion to the largest terms.
                rounding = max(1e-5, 2e-5 * parameter.grad.abs().max().item())
                torch.testing.assert_close(
                    rank["gradients"][key], parameter.grad, rtol=1e-3, atol=rounding
                )


@pytest.mark.parametrize(
    "name", ["fcos", "atss", "ddod", "gfl", "atss with distributions", "autoassign"]
)
@pytest.mark.parametrize("case", ["usual", "rank 1 is empty"])
def test_losses_and_gradients_equal_those_of_one_process_with_the_whole_batch(outputs, name, case):
    ranks = ranks_of(outputs, name, case)
    model = distiller(name)
    losses = model([*CASES[case][0](), *CASES[case][1]()])
    for key, loss in losses.items():
        mean = (ranks[0]["losses"][key] + ranks[1]["losses"][key]) / 2
        torch.testing.assert_close(mean, loss.detach(), rtol=1e-4, atol=1e-6)
    sum(losses.values()).backward()
    assert_gradients_are_those_of(model, ranks)


@pytest.mark.parametrize("name", UNLABELLED)
def test_ranks_with_and_without_labels_are_one_batch_of_both(outputs, name):
    ranks = ranks_of(outputs, name, "unlabelled")
    model = distiller(name, PseudoLabels(score_thresh=0.21))
    labelled, others = labelled_and_not()
    losses = model([*labelled, *others])
    for key, loss in losses.items():
        mean = (ranks[0]["losses"][key] + ranks[1]["losses"][key]) / 2
        torch.testing.assert_close(mean, loss.detach(), rtol=1e-4, atol=1e-6)
        assert key.startswith("kd_") or ranks[1]["losses"][key] == 0
    sum(losses.values()).backward()
    assert_gradients_are_those_of(model, ranks)


def test_accumulated_batches_of_two_processes_are_one_batch_of_one(outputs):
    ranks = [torch.load(outputs / f"accumulated_{r}.pth", weights_only=True) for r in range(2)]
    model = with_rules_of_batches()
    images = [i for case in ("usual", "rank 1 is empty") for of in CASES[case] for i in of()]
    losses = model(images)
    for key, loss in losses.items():
        assert ranks[0]["losses"][key] == pytest.approx(loss.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert_gradients_are_those_of(model, ranks)


def test_counts_of_levels_are_of_each_process_and_normalizers_are_means(outputs):
    ranks = [r["buffers"] for r in ranks_of(outputs, "ddod", "usual")]
    alone = []
    for images in CASES["usual"]:
        student = distiller("ddod").student
        student(images())
        alone.append(dict(student.named_buffers()))
    for rank, expected in zip(ranks, alone):
        assert torch.equal(rank["level_positives"], expected["level_positives"])
    for name in ("loss_normalizer", "regression_normalizer"):
        assert ranks[0][name] == ranks[1][name] == (alone[0][name] + alone[1][name]) / 2
        assert alone[0][name] != alone[1][name]
    assert not torch.equal(alone[0]["level_positives"], alone[1]["level_positives"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_every_rank_trains_without_nan_and_with_equal_gradients(outputs, name, case):
    first, second = ranks_of(outputs, name, case)
    assert all(torch.isfinite(loss) for rank in (first, second) for loss in rank["losses"].values())
    for key, gradient in first["gradients"].items():
        assert torch.isfinite(gradient).all(), key
        torch.testing.assert_close(gradient, second["gradients"][key])


@pytest.mark.parametrize("name", MODELS)
def test_the_checkpoint_of_two_processes_loads_strictly_into_the_bare_student(outputs, name):
    saved = torch.load(outputs / f"model_{name}_all empty.pth", weights_only=True)
    MODELS[name]().load_state_dict(saved["model"], strict=True)
    assert saved["trainer"]["iteration"] == 2
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def mobilenet(norm: str) -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(width_mult=0.1, last_conv=False, norm=norm).double().train()


def images_to_normalise() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=generator)


def normalise(output: Path) -> None:
    """Run a backbone with synchronised batch norm on the rank's half of the images."""
    images = images_to_normalise().chunk(2)[comm.get_rank()]
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
        mobilenet("SyncBN")(images)
    model = mobilenet("naiveSyncBN")
    parallel = create_ddp_model(model, device_ids=None, broadcast_buffers=False)
    outputs = parallel(images)
    sum(feature.square().mean() for feature in outputs.values()).backward()
    result = {
        "outputs": {key: value.detach() for key, value in outputs.items()},
        "gradients": {key: value.grad for key, value in model.named_parameters()},
        "state": model.state_dict(),
    }
    torch.save(result, output)


def test_batch_norm_of_two_processes_equals_that_of_one_with_the_whole_batch(outputs):
    ranks = [torch.load(outputs / f"norm_{r}.pth", weights_only=True) for r in range(2)]
    model = mobilenet("BN")
    features = model(images_to_normalise())
    sum(feature.square().mean() for feature in features.values()).backward()
    for name, feature in features.items():
        assert_close(torch.cat([rank["outputs"][name] for rank in ranks]), feature, 1e-8, name)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    # What comes before a norm has gradients that are rounding only.
    scale = 1e-3 * max(gradient.abs().max().item() for gradient in gradients.values())
    state = model.state_dict()
    for rank in ranks:
        for key, gradient in gradients.items():
            assert_close(rank["gradients"][key], gradient, 1e-8, key, scale=scale)
        for key in (key for key in state if key.endswith("running_mean")):
            assert_close(rank["state"][key], state[key], 1e-8, key, scale=0.01)
        # The running variance lacks Bessel's correction, here of 4 x 32 x 32 elements.
        key, count = "features.0.1.running_var", 4 * 32 * 32
        expected = 0.9 + (state[key] - 0.9) * (count - 1) / count
        assert_close(rank["state"][key], expected, 1e-8, key)
