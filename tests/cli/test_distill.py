"""``dense-kd distill``: every option of the Python call."""

import dataclasses
import inspect

import pytest

from dense_kd import cli, distill
from dense_kd.cli import distill as command
from dense_kd.pipeline import run
from dense_kd.pipeline.options import DistillOptions

OPTIONS = {field.name: field.default for field in dataclasses.fields(DistillOptions)}


def test_the_command_and_the_call_have_the_same_options_and_defaults():
    args = vars(cli.parse_args("distill", ["photos"])[1])
    assert args == {"data": "photos", **OPTIONS}
    parameters = inspect.signature(distill).parameters
    assert {name: p.default for name, p in parameters.items() if name != "data"} == OPTIONS


def test_the_command_calls_what_python_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(run, "distill", lambda data, **options: calls.append((data, options)))
    arguments = ["photos", "--student", "gfl_r18", "--compare", "--learning-rate", "0.1"]
    assert cli.main(["distill", *arguments, "--batch-size", "4"]) == 0
    given = dict(student="gfl_r18", compare=True, learning_rate=0.1, batch_size=4)
    assert calls == [("photos", {**OPTIONS, **given})]


def test_what_is_wrong_is_said_in_a_line(capsys, tmp_path):
    assert cli.main(["distill", str(tmp_path), "--student", "glf_r50"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dense-kd: 'glf_r50' is no detector; did you mean gfl_r50")


@pytest.mark.parametrize("field", dataclasses.fields(DistillOptions), ids=lambda f: f.name)
def test_every_option_says_what_it_does(field):
    assert len(field.metadata["help"]) > 5
    assert command.HELP
