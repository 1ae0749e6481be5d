"""One pass and its gradients: what each term of the loss asks of the student's pyramid."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn

from ... import compat
from ...checkpoint.errors import listed
from ...diagnostics.gradients import FLOAT16_SCALE, gradient_norms, gradient_shares
from ...distiller import Distiller
from ...methods.base.kd_method import teach_fully
from ..trainer import amp_dtype_of, autocast
from .data import Batch
from .models import Watch, levels, methods_of, student_of
from .results import BalanceFacts, LevelFacts, LossFacts


@dataclass
class LossPass:
    """What one pass showed.

    Attributes:
        levels: of the pyramids.
        input_shape: (N, C, H, W) of the padded batch; None of a model without ``backbone``.
        losses: the terms, with the factors of ``balance``.
        balance: of the methods, where weights are set by gradient share.
        gradient_norm: of all parameters; None if it could not be computed.
        problems: what does not fit.
        warnings: what is odd.
    """

    levels: list[LevelFacts]
    input_shape: tuple[int, ...] | None
    losses: list[LossFacts]
    balance: list[BalanceFacts] = field(default_factory=list)
    gradient_norm: float | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def loss_pass(cfg: DictConfig, model: nn.Module, batch: Batch) -> LossPass:
    """Losses of a batch, their gradients, and parameters that get none.

    All methods of the model have their full weights from then on.
    """
    model.train()
    if isinstance(model, Distiller):
        teach_fully(model.kd)
    student = Watch(student_of(model))
    teaching = model.teacher if isinstance(model, Distiller) else None
    teacher = Watch(teaching.model) if teaching is not None else None
    if isinstance(model, Distiller) and model.kd.balance is not None:
        model.kd.balance.measure_next()
    with EventStorage(0), student, teacher or contextlib.nullcontext():
        amp_dtype = amp_dtype_of(cfg.train)
        with autocast(torch.device(cfg.train.device), amp_dtype):
            losses = model(batch)
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        result = LossPass(
            levels=levels(student, teacher),
            input_shape=student.input_shape,
            losses=[LossFacts(name, value) for name, value in values.items()],
            balance=[*_balance(model)],
        )
        if _is_finite(result, losses):
            scale = FLOAT16_SCALE if amp_dtype == "float16" else 1.0
            _measure_shares(result, losses, [*student.maps.values()], scale)
            _measure_gradients(cfg, model, result, losses, scale)
    model.zero_grad()
    return result


def _balance(model: nn.Module) -> Iterator[BalanceFacts]:
    balance = model.kd.balance if isinstance(model, Distiller) else None
    if balance is None:
        return
    for name, _ in methods_of(model):
        share = balance.share_of(name, with_factor=False)
        yield BalanceFacts(
            name=name,
            share=share if math.isfinite(share) else None,
            target=balance.target_of(name),
            factor=balance.factor_of(name),
        )


def _is_finite(result: LossPass, losses: Mapping[str, Tensor]) -> bool:
    bad = {fact.name: fact.value for fact in result.losses if not math.isfinite(fact.value)}
    if not bad:
        return True
    found = ", ".join(f"{name}={value}" for name, value in bad.items())
    why = "look at the images and boxes of the first batch, and at the weights it starts from"
    try:  # a teacher whose pass is not finite makes the backward pass say so
        for name in bad:
            if losses[name].requires_grad:
                losses[name].backward(retain_graph=True)
    except FloatingPointError as error:
        why = str(error)
    result.problems.append(f"losses of the first batch are not finite ({found}): {why}")
    return False


def _measure_shares(
    result: LossPass, losses: Mapping[str, Tensor], maps: list[Tensor], scale: float
) -> None:
    if not any(level.requires_grad for level in maps):
        return
    norms = gradient_norms(losses, maps, scale)
    shares = gradient_shares(norms)
    for fact in result.losses:
        fact.gradient = norms[fact.name]
        fact.share = None if math.isnan(shares[fact.name]) else shares[fact.name]
        if fact.gradient == 0 and fact.name.startswith("kd_"):
            result.warnings.append(
                f"{fact.name} has no gradient at the student's pyramid for the first batch, so it "
                "taught its backbone nothing there"
            )


def _measure_gradients(
    cfg: DictConfig, model: nn.Module, result: LossPass, losses: Mapping[str, Tensor], scale: float
) -> None:
    total = sum(loss for loss in losses.values() if loss.requires_grad)
    if not isinstance(total, Tensor):
        result.problems.append("no loss has a gradient, so nothing would be trained")
        return
    (total * scale).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
    result.gradient_norm = float(compat.total_norm([*gradients.values()])) / scale
    if not math.isfinite(result.gradient_norm):
        bad = [name for name, g in gradients.items() if not torch.isfinite(g).all()]
        result.problems.append(
            f"gradients of the first batch are not finite, of {len(bad)} of {len(gradients)} "
            f"parameters: {', '.join(listed(bad, 5))}"
        )
    unused = [name for name in trained if name not in gradients]
    if not unused:
        return
    message = (
        f"{len(unused)} of {len(trained)} trained parameters get no gradient from any loss: "
        f"{', '.join(listed(unused, 5))}"
    )
    if cfg.train.ddp.get("find_unused_parameters", False):
        result.warnings.append(f"{message}. They stay as they start")
    else:
        result.problems.append(
            f"{message}. They stay as they start, and several processes would stop at them: freeze "
            "them or leave them out of the model, or, if that is meant, give "
            "train.ddp.find_unused_parameters=True"
        )
