"""The Python and YAML that pages show runs, on tiny data, in this process."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers.own_datasets import scenes, write_coco

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(language, code, id=f"{page.relative_to(ROOT / 'docs').as_posix()}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, (language, code) in enumerate(
        re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
    if language != "text"
]


@pytest.mark.parametrize("language, code", BLOCKS)
def test_a_block_runs(language, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if language == "yaml":
        assert yaml.safe_load(code)
        return
    if language == "bash":
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
        return
    assert language == "python", "what language is this? say how it is checked"
    if '"photos"' in code:
        write_coco(tmp_path / "photos" / "annotations.json", scenes(8), tmp_path / "photos/images")
    exec(compile(code, "block", "exec"), {"__name__": "block"})
