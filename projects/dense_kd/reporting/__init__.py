"""The page about trained runs: `dense-kd report`."""

from .errors import ReportError
from .report import report_runs

__all__ = ["ReportError", "report_runs"]
