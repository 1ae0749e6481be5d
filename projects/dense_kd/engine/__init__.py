"""Training and evaluation."""

from .checks import RunError, check_run, load_config
from .ranks import RankError, launch
from .run import do_test, evaluate, evaluate_teacher, train
from .trainer import Trainer

__all__ = [
    "RankError",
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
