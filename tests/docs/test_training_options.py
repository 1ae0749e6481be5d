"""The page on training has every option of ``train``, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from dense_kd import get_config
from dense_kd.engine.checks.values import TRAIN

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
# Of detectron2, which explains it.
OF_DETECTRON2 = {"ddp"}


def flat(options, above=""):
    for name, value in options.items():
        if hasattr(value, "items"):
            yield from flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def test_every_option_has_a_row_with_its_default():
    section = PAGE.partition("## Options of `train`")[2].partition("\n## ")[0]
    stated = {}
    for names, defaults in re.findall(r"^\| (`.*?`) \| (.*?) \|", section, re.MULTILINE):
        keys = re.findall("`(.*?)`", names)
        values = [yaml.safe_load(value) for value in re.findall("`(.*?)`", defaults)]
        stated.update(zip(keys, values or [None] * len(keys)))
    checked = {name for name, _ in flat(TRAIN) if name.partition(".")[0] not in OF_DETECTRON2}
    assert stated.keys() == checked - {"checkpointer.file_prefix"}
    defaults = dict(flat(get_config("common/train.py").train))
    assert stated == {name: defaults.get(name) for name in stated}
