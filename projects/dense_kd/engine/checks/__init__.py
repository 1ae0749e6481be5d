"""What is wrong with a run, found before it loads anything."""

from .config_file import load_config
from .errors import RunError
from .run import check_run

__all__ = ["RunError", "check_run", "load_config"]
