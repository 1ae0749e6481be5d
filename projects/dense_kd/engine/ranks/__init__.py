"""The processes of a run as one: they are started or joined here."""

from .errors import RankError
from .joining import Rank, joined, rank_of_environment
from .launching import launch

__all__ = ["Rank", "RankError", "joined", "launch", "rank_of_environment"]
