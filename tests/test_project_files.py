"""Files about the project say the same where they speak of the same."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_the_citation_names_the_version_of_the_package_its_date_and_the_four_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version, date = citation["version"], citation["date-released"]
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()
    assert f"\n## {version} ({date})\n" in (ROOT / "CHANGELOG").read_text()
    titles = " ".join(paper["title"] for paper in citation["references"])
    for name in ("Cross-task Protocol", "CrossKD", "Prediction-Guided", "Task Integration"):
        assert name in titles


def test_the_hooks_before_a_commit_are_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line for line in recipe[1].splitlines() if "$(BIN)" in line]
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repo in settings["repos"] for hook in repo["hooks"]]
    assert [line.strip("\t@").replace("$(BIN)", ".venv/bin") for line in commands] == hooks
