"""Trainings of ``benchmarks/``: which are used again."""

from __future__ import annotations

import pytest

from helpers.scripts import load_benchmark

TAUGHT = "bccd/bckd_gfl_lite2_r18.py"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """All that a training is known again by, with these overrides."""
    script, runs = load_benchmark("trained"), []
    monkeypatch.setattr(script, "train_together", runs.extend)

    def of(config, *overrides):
        script.trained("a training", tmp_path / "run", config, overrides, threads=1)
        return runs[-1].settings

    return of


def test_a_training_of_other_settings_is_another_one(settings):
    once, again, longer = (
        settings("bccd/gfl_r18.py", f"train.max_iter={number}") for number in (2, 2, 3)
    )
    assert once == again != longer


@pytest.mark.parametrize(
    "override", ["model.teacher.weights={file}", "train.init_checkpoint={file}"]
)
def test_a_training_by_another_teacher_or_start_in_the_same_file_is_another_one(
    settings, tmp_path, override
):
    file = tmp_path / "weights.pth"
    found = []
    for content in (b"one", b"one", b"other"):
        file.write_bytes(content)
        found.append(settings(TAUGHT, override.format(file=file)))
    assert found[0] == found[1] != found[2]
