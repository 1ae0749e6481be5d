"""``benchmarks/balance.py``: cells are trained once, and the hand-set weight is left alone."""

from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from helpers.scripts import load_benchmark


@pytest.mark.slow
def test_cells_are_trained_once_and_the_hand_set_weight_stays(tmp_path, capsys):
    script = load_benchmark("balance")
    script.SPLITS = {"train": 4, "val": 2}
    file = tmp_path / "results.json"
    small = ["--teacher-iterations", "1", "--batch-size", "2", "--results", str(file)]
    arguments = ["fgfi", "--iterations", "3", *small, "--output", str(tmp_path / "runs")]

    def run(*more: str) -> dict:
        try:
            script.main([*arguments, *more])
        finally:
            for split in script.SPLITS:
                DatasetCatalog.remove(f"balance_{split}")
                MetadataCatalog.remove(f"balance_{split}")
        return json.loads(file.read_text())["cells"]

    cells = run()
    assert list(cells) == ["teacher", "fgfi, balance", "fgfi, hand", "student alone"]
    hand, balanced = cells["fgfi, hand"], cells["fgfi, balance"]
    assert set(hand["factor"].values()) == {1.0} and len(hand["share"]) == 3
    assert hand["share"]["0"] == balanced["share"]["0"]
    assert balanced["factor"]["2"] != 1.0
    assert run() == cells
    with pytest.raises(SystemExit):
        run("--target", "0.2")
    assert "cells of other settings" in capsys.readouterr().err
