"""The demo of ``tools/demo.py``: a teacher, a student and a distilled student on generated data."""

from .demo import DemoError, Options, run_demo

__all__ = ["DemoError", "Options", "run_demo"]
