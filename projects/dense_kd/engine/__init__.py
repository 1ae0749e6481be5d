"""Training and evaluation."""

from ..compat import launch
from .checks import RunError, check_run, load_config
from .run import do_test, evaluate, evaluate_teacher, train
from .trainer import Trainer

__all__ = [
    "RunError",
    "Trainer",
    "check_run",
    "do_test",
    "evaluate",
    "evaluate_teacher",
    "launch",
    "load_config",
    "train",
]
