"""Every script of ``tools/`` and ``benchmarks/`` starts in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HELP = """
import contextlib, io, os, runpy, sys
for script in sys.argv[1:]:
    sys.path.insert(0, os.path.dirname(script))  # as for a script that is run
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            assert not end.code, script
    print(script, "usage:" in said.getvalue())
"""


def test_each_script_says_how_it_is_used():
    files = [path for folder in ("tools", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    scripts = [str(path) for path in files if "__main__" in path.read_text()]
    assert len(scripts) > 5
    command = [sys.executable, "-c", HELP, *scripts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{script} True" for script in scripts]
