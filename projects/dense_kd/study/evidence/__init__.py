"""The page of the studies' results, written from the files of the cells alone."""

from .page import headline, write_evidence

__all__ = ["headline", "write_evidence"]
