"""Training and evaluation."""

from ..compat import launch
from .run import do_test, evaluate, evaluate_teacher, train
from .trainer import Trainer

__all__ = ["Trainer", "do_test", "evaluate", "evaluate_teacher", "launch", "train"]
