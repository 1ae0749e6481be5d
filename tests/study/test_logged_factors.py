"""What a cell says of weights that set themselves is what Balance writes."""

from __future__ import annotations

import json

import torch

from dense_kd.engine import Trainer
from dense_kd.methods import PKD
from dense_kd.study.worker import _logged
from helpers.builders import batch, tiny_fcos
from helpers.checked_runs import load
from helpers.feature_cases import distill


def test_the_factor_of_a_method_is_in_its_result(tmp_path):
    model = distill(tiny_fcos(), tiny_fcos(seed=1), pkd=PKD(), balance={"target": 0.2})
    run = Trainer(model, [batch()], torch.optim.SGD(model.parameters(), lr=0.0))
    run.train(0, 1)
    written = {name: value for name, (value, _) in run.storage.latest().items()}
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 0, **written}))
    factors = _logged(load(), tmp_path)["factors"]
    assert list(factors) == ["pkd"] and factors["pkd"] != 1.0


def test_the_share_that_balance_found_is_the_mean_of_the_second_half(tmp_path):
    records = [
        {"iteration": i, "diag/balance_share_pkd": s} for i, s in enumerate([9, 9, 0.1, 0.3])
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, records)))
    cfg = load()
    cfg.train.max_iter = 4
    assert _logged(cfg, tmp_path)["balance_shares"] == {"pkd": 0.2}
    assert _logged(cfg, tmp_path)["shares"] == {}
