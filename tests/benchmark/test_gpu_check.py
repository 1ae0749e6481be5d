"""``benchmarks/gpu_check.py``, with the CPU in the place of a GPU."""

from __future__ import annotations

import json

import pytest
import torch

from dense_kd import detectors, methods
from dense_kd.benchmark.schema import read_results
from dense_kd.pipeline.methods import methods_by_name
from helpers.configs import files_loaded_once
from helpers.scripts import load_benchmark

SMALL = ["--costs", "quickstart/distill", "--size", "64", "64", "--batches", "1"]


@pytest.fixture(scope="module")
def script():
    return load_benchmark("gpu_check")


@pytest.fixture(autouse=True)
def configs():
    with files_loaded_once():
        yield


def test_every_method_and_detector_is_checked(script):
    known = set(script.known_checks())
    assert set(methods_by_name()) < known
    for name in ("ATSS", "AutoAssign", "DDOD", "FCOS", "GFL", "RetinaNet"):
        assert name.lower() in known and hasattr(detectors, name)
    for name in ("bckd", "fkd"):
        method = script.config_of(name).model.methods[name]
        assert method._target_ is getattr(methods, name.upper())


def test_without_a_gpu_it_says_so_and_is_content(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--output", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "gpu_check: torch sees no GPU here, so nothing was checked\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_checks_and_costs_are_written(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "COST_ROUNDS", 1)
    monkeypatch.setattr(script, "_SIDE", 64)
    checks = ["mgd", "processes"]
    folder = ["--output", str(tmp_path)]
    assert script.main(["--device", "cpu", *folder, *SMALL, "--checks", *checks]) == 0
    found = json.loads((tmp_path / "losses.json").read_text())["checks"]
    assert list(found) == checks and all(check["ok"] for check in found.values())
    assert "kd_mgd_loss_feature" in found["mgd"]["random"]
    assert found["mgd"]["off"]["loss_fcos_cls"] == 0 < found["mgd"]["bfloat16"]
    assert found["processes"]["backend"] == "gloo"
    (run,) = read_results(tmp_path / "cost_batch1.json")["runs"]
    assert run["amp"] == "bfloat16" and run["kernels"] is None and run["price"]["median"] > 0


def test_a_check_that_differs_or_fails_makes_it_fail(script, tmp_path, monkeypatch, capsys):
    def wrong(model, batch, device, **options):
        if options.get("dtype"):
            raise RuntimeError("no kernel image\nand more")
        return {"loss": 1.0 + 0.002 * ("seed" not in options)}

    monkeypatch.setattr(script, "step", wrong)
    arguments = ["--device", "cpu", "--output", str(tmp_path), "--costs", "--checks"]
    assert script.main([*arguments, "fcos"]) == 1
    assert "FAILS: fcos" in capsys.readouterr().out
    assert json.loads((tmp_path / "losses.json").read_text())["checks"]["fcos"] == {
        "ok": False,
        "error": "RuntimeError: no kernel image",
    }
    monkeypatch.setattr(script, "amp_dtypes", lambda device: [])
    found = script.check("fcos", torch.device("cpu"))
    assert not found["ok"] and found["off"]["loss"] == pytest.approx(0.002)
    monkeypatch.setattr(script, "TOLERANCE", 0.0021)
    assert script.check("fcos", torch.device("cpu"))["ok"]
    assert script.main([*arguments, "nothing"]) == 2


def test_costs_are_left_out_when_time_is_up(script, tmp_path, capsys):
    arguments = ["--device", "cpu", "--output", str(tmp_path), *SMALL, "--minutes", "0", "--checks"]
    assert script.main(arguments) == 0
    assert "the cost of batches of 1 was not measured" in capsys.readouterr().out
    assert not list(tmp_path.glob("cost*"))
