"""Options of a run may refer to other entries of its config."""

from __future__ import annotations

import argparse

import pytest

from dense_kd.engine import run, train
from dense_kd.engine.state.keeping import LatestCheckpoints
from helpers.checked_runs import load


class Begun(Exception):
    """The run is built."""


def test_a_run_reads_what_its_options_refer_to(tmp_path, monkeypatch):
    given = {}

    def parallel(model, **options):
        given["ddp"] = options
        return model

    def latest(checkpointer, **options):
        given["checkpointer"] = options
        LatestCheckpoints(checkpointer, **options)
        raise Begun

    monkeypatch.setattr(run, "create_ddp_model", parallel)
    monkeypatch.setattr(run, "LatestCheckpoints", latest)
    cfg = load(
        f"train.output_dir={tmp_path}",
        "train.eval_period=3",
        "train.checkpointer.period=${train.eval_period}",
        "train.checkpointer.max_to_keep=${train.max_iter}",
        "train.ddp.find_unused_parameters=${train.overwrite}",
        "train.ddp.fp16_compression=${train.amp.enabled}",
    )
    with pytest.raises(Begun):
        train(argparse.Namespace(resume=False), cfg)
    assert given["checkpointer"] == {"period": 3, "max_to_keep": cfg.train.max_iter}
    assert given["ddp"]["find_unused_parameters"] is False
    assert given["ddp"]["fp16_compression"] is False
