"""``benchmarks/unlabelled.py``: which runs are compared, and how."""

from __future__ import annotations

import json
import sys

import pytest

from dense_kd.config import find_config, get_config
from dense_kd.engine.checks import unlabelled
from dense_kd.engine.checks.overrides import apply_overrides
from helpers.scripts import load_benchmark


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setitem(sys.modules, "bccd", load_benchmark("bccd"))  # it stands beside it
    return load_benchmark("unlabelled")


def test_differences_are_those_of_pairs_with_the_interval_of_students_t(script):
    assert all(find_config(config) for config in script.CONFIGS)

    def results(*aps: float | None, iterations: int = 2) -> dict:
        return {
            str(seed): {"val": {"AP": ap}, "iterations": iterations}
            for seed, ap in enumerate(aps, start=1)
        }

    found = script.differences({"labelled": results(10, 12, 11), "all": results(13, 13, 13)}, "val")
    assert found["AP"] == {"1": 3, "2": 1, "3": 2} and found["mean"] == 2
    # The deviation is 1, so that of the mean is 1 / sqrt(3).
    assert (found["low"], found["high"]) == pytest.approx((2 - 2.4843, 2 + 2.4843), abs=1e-3)
    one = script.differences({"labelled": results(10, None), "all": results(12, 13)}, "val")
    assert one == {"AP": {"1": 2}, "mean": 2, "low": None, "high": None}
    longer = results(12, 13, iterations=3)
    assert script.differences({"labelled": results(10, 11), "all": longer}, "val")["AP"] == {}
    none = script.differences({"labelled": results(10)}, "val")
    assert none["mean"] is None
    assert script.said({f"difference on {part}": found for part in ("val", "test")}) == (
        "+2.0 AP on val (-0.5 to +4.5), +2.0 AP on test (-0.5 to +4.5), of 3 pairs"
    )


def test_both_arms_of_every_seed_are_run_and_written_beside_what_is_there(script, tmp_path, capsys):
    runs, results = {}, tmp_path / "results.json"
    results.write_text(json.dumps({"another": {}}))

    def run(config: str, overrides: list[str], threads: int) -> dict:
        assert threads == 2
        cfg = apply_overrides(get_config(config), overrides)
        runs[cfg.train.output_dir] = cfg
        ap = 10.0 + cfg.train.seed * ("unlabelled" in overrides[0])
        return {"iterations": 2, "val": {"AP": ap}, "test": {"AP": None}}

    script.bccd.run = run
    config, output = script.CONFIGS[0], tmp_path / "out"
    arguments = ["--threads", "2", "--output", str(output), "--results", str(results)]
    script.main([config, *arguments, "--seeds", "4", "5", "--override", "train.max_iter=2"])
    found = json.loads(results.read_text())
    assert [*found] == ["another", config] and found[config]["share"] == 0.1
    assert [*found[config]["labelled"]] == [*found[config]["all"]] == ["4", "5"]
    assert found[config]["difference on val"]["AP"] == {"4": -4, "5": -5}
    assert found[config]["difference on test"]["AP"] == {}
    alone, both = (runs[f"{output}/unlabelled_tenth/{arm}_4"] for arm in script.ARMS)
    for cfg in (alone, both):
        assert cfg.train.seed == cfg.dataloader.train.dataset.seed == 4
        assert [*unlabelled.problems(cfg)] == []
    assert alone.dataloader.unlabelled is alone.model.pseudo_labels is None
    assert both.dataloader.unlabelled.dataset.seed == 4  # of the same images
    with pytest.raises(SystemExit):
        script.main([config, *arguments, "--seeds", "4", "--override", "train.max_iter=3"])
    assert "labelled 5, all 5 of" in capsys.readouterr().err
    assert json.loads(results.read_text()) == found
