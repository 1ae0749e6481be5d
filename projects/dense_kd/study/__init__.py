"""A study: pairs of detectors, methods and seeds, trained so that they can be compared."""

from .cells import Cell
from .errors import StudyError
from .running import Settings, recompute, run_study
from .study_file import Study, read_study

__all__ = ["Cell", "Settings", "Study", "StudyError", "read_study", "recompute", "run_study"]
