"""The page of the studies' results, written from the files of the cells alone."""

from .page import write_evidence

__all__ = ["write_evidence"]
