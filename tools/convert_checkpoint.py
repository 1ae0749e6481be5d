#!/usr/bin/env python
"""Convert a checkpoint of mmdetection, torchvision or timm: ``dense-kd convert``, as a script."""

import os
import sys

# Works in a checkout that is not installed, too.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "projects"))

from dense_kd.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("convert", sys.argv[1:], prog=os.path.basename(sys.argv[0])))
