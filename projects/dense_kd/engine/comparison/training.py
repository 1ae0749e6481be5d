"""Trains some iterations in a process of its own, with the package of any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import recording
from .errors import ComparisonError
from .pairs import Run
from .tables import Losses


def losses_of(
    run: Run, iterations: int, *, overrides: Sequence[str] = (), random_teacher: bool = False
) -> Losses:
    """The losses of its first iterations.

    Paths of data and weights are those of this process.

    Args:
        run: its output goes to a temporary folder.
        iterations: how many.
        overrides: of the config.
        random_teacher: do without the file of a teacher.

    Raises:
        ComparisonError: it failed; with the end of its log.
    """
    projects = run.folder / "projects"
    with tempfile.TemporaryDirectory(prefix="dense_kd_") as name:
        folder = Path(name)
        request = {
            "package": str(projects / "dense_kd"),
            "config": str(run.config),
            "overrides": [*overrides],
            "random_teacher": random_teacher,
            "output_dir": str(folder / "output"),
            "iterations": iterations,
        }
        (folder / "request.json").write_text(json.dumps(request))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(projects), os.environ.get("PYTHONPATH", "")]),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # with which cuBLAS can be repeated
        }
        answer, log = folder / "answer.json", folder / "log.txt"
        command = [sys.executable, recording.__file__, str(folder / "request.json"), str(answer)]
        with log.open("w") as file:
            code = subprocess.run(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            ).returncode
        found = json.loads(answer.read_text()) if code == 0 else {}
        if "losses" in found:
            return found["losses"]
        lines = log.read_text(errors="replace").splitlines()
        reason = found.get("error", "\n".join([f"its process ended with {code}", *lines[-20:]]))
        raise ComparisonError(f"{run.name} failed: {reason}")
