"""The script for SLURM does what its page says, with a SLURM that is pretended."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"

PROGRAMS = {
    "scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "scontrol $@"; fi',
    "srun": """for task in 0 1 2 3; do
        SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) "$@" || code=$?
    done; exit ${code:-0}""",
    "dense-kd": """
    echo "$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $@"
    exit $CODE""",
}


@pytest.mark.parametrize("code", [0, 1, 75])
def test_each_task_knows_its_place_and_a_job_that_was_stopped_goes_back(tmp_path, code):
    (script,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for name, content in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    job = {
        "SLURM_JOB_ID": "12345678", "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
    }  # fmt: skip
    result = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code), **job},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code and result.stderr == ""
    *tasks, last = [*result.stdout.splitlines(), ""][:5]
    command = "train bckd/gfl_r101_r50_1x train.output_dir=output/bckd --resume --progress lines"
    assert tasks == [f"{n}/4 {n % 2}/2 node1:25678 {command}" for n in range(4)]
    assert last == ("scontrol requeue 12345678" if code == 75 else "")
