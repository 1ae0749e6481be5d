"""``dense-kd diagnose``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from dense_kd.cli import main
from helpers.tried_runs import write_teacher

CONFIG = "quickstart/distill"
TEACHER = "output/quickstart/teacher/model_final.pth"


@pytest.fixture
def trained(workspace) -> Path:
    """A workspace with the teacher of the config."""
    (workspace / TEACHER).parent.mkdir(parents=True)
    write_teacher(workspace / TEACHER)
    return workspace


def test_it_prints_tables_and_writes_numbers_and_a_picture(trained, capsys):
    options = ["--what", "conflicts,masking", "--json", "out/d.json", "--plot", "out/d.png"]
    assert main(["diagnose", CONFIG, "--images", "2", *options]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +conflicts per positive above +teacher$", printed, re.MULTILINE)
    assert re.search(r"^ +0\.5 +\d+\.\d\d$", printed, re.MULTILINE)
    assert re.search(r"^ +AP without the best, % +teacher$", printed, re.MULTILINE)
    content = json.loads(Path("out/d.json").read_text())
    assert content["images"] == 2 and len(content["masking"]["teacher"]["ap"]) == 7
    of_teacher = content["conflicts"]["teacher"]
    for above, ratio in zip(of_teacher["above"], of_teacher["ratios"]):
        assert ratio == pytest.approx(above / of_teacher["positives"])
    assert Image.open("out/d.png").size == (1200, 480)


def test_further_teachers_are_configs_or_checkpoints(trained, capsys):
    (trained / "output/quickstart/teacher/last_checkpoint").write_text("model_final.pth")
    given = ["--teacher", "config=quickstart/teacher", "--images", "1"]
    assert main(["diagnose", CONFIG, *given]) == 0
    rows = re.findall(r"^ +0\.\d+ +(\S+) +(\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 19 and all(own == again for own, again in rows)  # it is the same one
    assert main(["diagnose", CONFIG, "--teacher", f"file={TEACHER}"]) == 1
    assert f"{TEACHER} does not describe its detector" in capsys.readouterr().err


def test_distances_are_read_from_the_run_of_the_config_and_others(workspace, capsys):
    for name, distance in (("bckd", 0.25), ("pkd", 0.125)):
        run = workspace / "output/quickstart" / name
        run.mkdir(parents=True)
        row = {"iteration": 20, "diag/distance_teacher": distance, "diag/distance_truth": 0.5}
        (run / "metrics.json").write_text(json.dumps(row) + "\n")
    others = ["--run", "PKD=output/quickstart/pkd", "--json", "d.json"]
    assert main(["diagnose", CONFIG, "--what", "distances", *others]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert re.search(r"^ +quickstart/distill: iteration +distance to te", first, re.MULTILINE)
    assert re.search(r"^ +20 +0\.25 +0\.5 +-$", first, re.MULTILINE)
    assert "PKD: iteration" in second and re.search(r"^ +20 +0\.125 ", second, re.MULTILINE)
    content = json.loads(Path("d.json").read_text())["distances"]
    assert [each["teacher"] for each in content.values()] == [[0.25], [0.125]]
    assert main(["diagnose", CONFIG, "--what", "distances", "--run", "none=nowhere"]) == 1
    assert "nowhere/metrics.json has no distances; train with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--what", "conflict"], "what 'conflict': expected one or more of"),
        (["--teacher", "x"], "--teacher x: expected TITLE=CONFIG_OR_CHECKPOINT"),
        (["--teacher", "a=x", "--teacher", "a=y"], "--teacher a=y: expected"),
        (["--run", "PKD="], "--run PKD=: expected TITLE=FOLDER, each title once"),
        (["--plot", "e.gif"], "e.gif: expected a name that ends with one of"),
        (["--images", "0"], "0 images: expected 1 or more"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_printed(arguments, said, capsys):
    assert main(["diagnose", CONFIG, *arguments]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == "" and "Traceback" not in printed.err
