"""``benchmarks/soak.py``: what grew is found, and a run that was stopped goes on."""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from helpers.scripts import load_benchmark

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # as for a script that is run
import performance_pages  # noqa: E402

sys.path.remove(str(ROOT / "tools"))


def samples(script, **values):
    """One for each of the values of any name; the others are 7."""
    number = len(next(iter(values.values())))
    same = dict.fromkeys(script.TRACED, [7] * number) | values
    return [
        {"iteration": 500 * (i + 1), "seconds": 9.0} | {name: of[i] for name, of in same.items()}
        for i in range(number)
    ]


def test_a_slope_is_that_of_the_later_samples_per_1000_iterations():
    script = load_benchmark("soak")
    once = [900] * script.ONCE
    found = script.slopes(samples(script, rss=[*once, 0, 10, 20, 30], malloc=[None] * 10))
    assert found["rss"] == pytest.approx(20) and found["threads"] == 0
    assert found["malloc"] is None


def test_the_line_that_keeps_memory_is_named():
    script = load_benchmark("soak")
    tracemalloc.start()
    try:
        before = script.traced_lines()
        kept = [bytes(1000) for _ in range(100)]
        grown = script.growth(before, script.traced_lines())
    finally:
        tracemalloc.stop()
    assert grown[0]["line"].rpartition(":")[0].endswith("test_soak.py") and kept
    assert grown[0]["bytes"] > 100_000


def test_the_page_shows_what_grew():
    script = load_benchmark("soak")
    sizes = [1e6, *[2e6] * 6, 2e6, 3e6]  # the eighth is the first that counts
    process = {"samples": samples(script, rss=sizes)}
    process["per_1000_iterations"] = dict.fromkeys(script.TRACED)
    about = {"versions": {"torch": "2"}, "machine": {"cpu": "a CPU"}, "threads": 1, "side": 64}
    content = {"commit": "0" * 40, "processes": [process], **about}
    text = performance_pages.soak(content)
    assert "|`rss`|1.00MB|3.00MB|1.00MB|" in text.replace(" ", "")
    assert re.search(r"\| per 1,000 iterations since 3,500 +\|", text)
    assert "of 4,500 iterations (0 minutes in 1 process)" in text


@pytest.mark.slow
def test_samples_of_a_distillation_are_written_and_the_next_process_goes_on(tmp_path, monkeypatch):
    script = load_benchmark("soak")
    monkeypatch.setattr(script, "SPLITS", {"train": 4, "val": 1})
    file = tmp_path / "soak.json"
    words = ["--output", str(tmp_path), "--results", str(file), "--period", "1", "--workers", "0"]
    words += ["--override", "train.eval_period=0", "--override", "train.maps.period=0"]
    words += ["--override", "train.diagnostics.period=0"]
    words += ["--override", "dataloader.evaluator=null"]
    words += ["--override", "train.diagnostics.images=0"]
    try:
        script.main([*words, "--iterations", "3", "--minutes", "0"])
        script.main([*words, "--iterations", "3"])
    finally:
        tracemalloc.stop()
        for split in script.SPLITS:
            DatasetCatalog.pop(f"soak_{split}", None)
            MetadataCatalog.pop(f"soak_{split}", None)
    first, second = json.loads(file.read_text())["processes"]
    assert [each["iteration"] for each in first["samples"]] == [1]
    assert [each["iteration"] for each in second["samples"]] == [2, 3]
    assert min(each["rss"] for each in second["samples"]) > second["samples"][0]["python"] > 0
    assert second["python_growth"]
