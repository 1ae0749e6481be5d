"""Weights by gradient share on the page of a dry run."""

from __future__ import annotations

import pytest

from dense_kd import PKD
from dense_kd.engine.dry_run import DryRun
from dense_kd.engine.dry_run.losses import loss_pass
from dense_kd.engine.dry_run.results import BalanceFacts
from helpers.builders import batch, tiny_fcos
from helpers.checked_runs import load
from helpers.feature_cases import distill


def test_the_first_batch_shows_the_share_of_each_method_and_the_factor_it_gets():
    cfg = load(config="quickstart/distill.py")
    plain = distill(tiny_fcos(), tiny_fcos(seed=1), pkd=PKD(weight=0.1))
    assert loss_pass(cfg, plain, batch()).balance == []
    balance = {"target": 0.2, "probe": 0, "tolerance": 0.0}
    model = distill(tiny_fcos(), tiny_fcos(seed=1), pkd=PKD(weight=0.1), balance=balance)
    found = loss_pass(cfg, model, batch())
    [facts] = found.balance
    assert (facts.name, facts.target) == ("pkd", 0.2)
    odds = facts.share / (1 - facts.share)
    assert facts.factor == pytest.approx(0.25 / odds)


def test_the_page_says_it_in_words():
    facts = [BalanceFacts("pkd", 0.612, 0.15, 0.1), BalanceFacts("kd", None, 0.15, 1.0)]
    assert DryRun("cpu", balance=facts).text().splitlines()[:3] == [
        "balance      pkd: 61.2 % with its own weights, which are times 0.1 above; target 15 %",
        "             kd: no share with its own weights, which are times 1 above; target 15 %",
        "             shares of the gradient's L1 norm, a method and detection alone; a run "
        "measures on",
    ]
