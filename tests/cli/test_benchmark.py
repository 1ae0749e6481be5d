"""``dense-kd benchmark``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dense_kd.benchmark.schema import read_results
from dense_kd.cli import main
from dense_kd.cli.benchmark import wanted_of
from helpers.configs import files_loaded_once

CONFIG = "quickstart/distill"
FEW = ["--device", "cpu", "--threads", "1", "--rounds", "1", "--warmup", "0"]


def test_overrides_are_of_all_or_of_the_config_before_them():
    first, second, third = wanted_of(["x=1", "a", "b", "y=2", "z=3", "b"])
    assert [w.title for w in (first, second, third)] == ["a", "b y=2 z=3", "b"]
    assert {w.common for w in (first, second, third)} == {("x=1",)}


@pytest.mark.slow
def test_it_prints_tables_of_loaded_data_and_writes_numbers_and_a_profile(workspace, capsys):
    files = ["--json", "out/cost.json", "--profile", "out/step.txt"]
    some = ["quickstart/unlabelled", "dataloader.train.dataset.share=0.5"]
    with files_loaded_once():
        assert main(["benchmark", *some, *FEW, "--data", *files, "--what", "times"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^data +\S+ ms ", printed, re.MULTILINE) and "loaded" in printed
    assert re.search(r"^quickstart/unlabelled .*=0.5 +\d+\.\d{3} ", printed, re.MULTILINE)
    results = read_results(Path("out/cost.json"))
    assert results["data"] == "loaded" and results["batch"]["height"] > 0
    assert list(results["runs"][0]["parts"])[0] == "data"
    assert (results["batch"]["images"], results["runs"][0]["unlabelled"]) == (1, 1)
    assert "aten::convolution_backward" in Path("out/step.txt").read_text()


@pytest.mark.slow
def test_images_boxes_and_classes_are_those_that_are_asked_for(capsys, tmp_path):
    drawn = ["--size", "64", "96", "--batch", "2", "--boxes", "1", "--classes", "9"]
    files = ["--json", str(tmp_path / "c.json"), "--profile", str(tmp_path / "p.json")]
    with files_loaded_once():
        assert main(["benchmark", CONFIG, *FEW, *drawn, *files, "--what", "flops"]) == 0
    assert "batch: 2 x 64 x 96, drawn; boxes an image: 1\n" in capsys.readouterr().out
    results = read_results(tmp_path / "c.json")
    assert results["batch"] == {"images": 2, "height": 64, "width": 96, "boxes": 1}
    names = {
        event["name"] for event in json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    }
    assert {CONFIG, "aten::convolution_backward"} <= names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no config; give one or more distillations"),
        ([CONFIG, "--profile", "p.gz"], "p.gz: expected a name that ends with .json"),
        (["quickstart/student"], "quickstart/student is of no distillation"),
        ([CONFIG, "--what", "time"], "what 'time': expected one or more of"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(arguments, said, capsys):
    with files_loaded_once():
        assert main(["benchmark", *arguments]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == "" and "Traceback" not in printed.err
