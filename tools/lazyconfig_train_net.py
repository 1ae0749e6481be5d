#!/usr/bin/env python
"""Train or evaluate what a LazyConfig describes: ``dense-kd train``, as a script."""

import os
import sys

from dense_kd.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], prog=os.path.basename(sys.argv[0])))
