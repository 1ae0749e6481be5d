"""``dense-kd replay``, of a step that a run has kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dense_kd import get_config
from dense_kd.cli import main
from dense_kd.engine.building import build

pytestmark = pytest.mark.slow

FILE = Path("output/quickstart/mgd/replay/step_0000001.pth")
TEACHER = Path("output/quickstart/teacher/model_final.pth")


def write_teacher() -> None:
    state = build(get_config("quickstart/teacher.py").model, "").state_dict()
    torch.save({"model": state}, TEACHER)


@pytest.fixture
def kept(workspace) -> Path:
    """Of a run with far too high a learning rate, and masks that are drawn."""
    torch.manual_seed(0)
    TEACHER.parent.mkdir(parents=True)
    write_teacher()
    command = ["train", "quickstart/mgd", "optimizer.lr=1e30", "train.accumulate=2"]
    with pytest.raises(FloatingPointError):
        main([*command, "dataloader.train.total_batch_size=2", "train.device=cpu"])
    return FILE


def changed(file: Path, change) -> str:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, "changed.pth")
    return "changed.pth"


def test_a_step_fails_as_it_did_to_the_last_digit(kept, capsys):
    assert main(["replay", str(kept)]) == 0
    text = capsys.readouterr().out
    in_the_run, here = text.split("in the run:\n")[1].split("here:\n")
    here, _, rest = here.partition("first output that is not finite: ")
    assert in_the_run == here and "stopped before the step of iteration 1: not finite" in here
    assert "kd_mgd" in here and ".png" in here
    conv = "backbone.bottom_up.res2.0.conv1"  # the norm is part of it
    assert rest.startswith(f"{conv}.norm (BatchNorm2d, ")
    assert f"they are made in {conv} (Conv2d, whose parameters and buffers are not finite)" in rest


def test_a_step_that_does_not_fail_says_so_and_other_files_are_refused(kept, capsys):
    def mend(content) -> None:
        model = build(get_config("quickstart/mgd.py").model, "")
        content["model"].update(model.state_dict())

    assert main(["replay", changed(kept, mend)]) == 1
    assert "the step does not fail as it did" in capsys.readouterr().out
    assert main(["replay", changed(kept, lambda content: content.pop("replay"))]) == 1
    assert "is no step of a run" in capsys.readouterr().err
    assert main(["replay", changed(kept, lambda content: content.update(replay=1))]) == 1
    assert "is a step of another version" in capsys.readouterr().err
    half = {"amp": {"enabled": True, "dtype": "float16"}}
    assert main(["replay", changed(kept, lambda c: c["train"].update(half)), "--device=cpu"]) == 1
    assert "in float16, which needs a GPU" in capsys.readouterr().err
    write_teacher()
    assert main(["replay", str(kept)]) == 1
    assert "is not the teacher that the step was run with" in capsys.readouterr().err


def test_a_file_can_name_nothing_but_detectors_and_methods(kept, capsys):
    def attack(content) -> None:
        call = {"_target_": "os.system", "command": "touch attacked"}
        content["description"]["student"] = call

    assert main(["replay", changed(kept, attack)]) == 1
    assert "'os.system', which is none of the classes" in capsys.readouterr().err
    assert not Path("attacked").exists()
    # The config of the run is code of its own, and what it says holds.
    assert main(["replay", "changed.pth", "--config", "quickstart/mgd", "--device", "cpu"]) == 0
