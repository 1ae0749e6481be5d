"""The demo of ``tools/demo.py``: a teacher, a student and a distilled student on generated data."""

from .demo import Options, run_demo
from .runs import DemoError

__all__ = ["DemoError", "Options", "run_demo"]
