"""Parts of a dry run, tried one after the other: one that fails does not end the rest."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ...errors import DenseKDError
from ..checks import RunError

T = TypeVar("T")


class Attempts:
    """What was tried and what came of it.

    Attributes:
        problems: of all parts, each once.
        not_tried: parts that need one that failed.
    """

    def __init__(self, known: Sequence[str] = ()):
        """
        Args:
            known: problems of the config, found before anything was tried.
        """
        self.known = list(known)
        self.problems = list(known)
        self.not_tried: list[str] = []

    def run(
        self, what: str, action: Callable[..., T], *needs: Any, place: str | tuple[str, ...] = ()
    ) -> T | None:
        """``action(*needs)``; None if it fails or something that it needs is None.

        Args:
            what: is tried, as a noun.
            action: does it.
            needs: results of earlier parts.
            place: in the config; what fails there where the config has a known problem is its
                consequence, and no further problem.
        """
        if any(need is None for need in needs):
            self.not_tried.append(what)
            return None
        try:
            return action(*needs)
        except RunError as error:
            if self._is_known(place):
                self.not_tried.append(what)
            else:
                self.add(*error.problems)
        except DenseKDError as error:
            self.add(str(error))
        except torch.cuda.OutOfMemoryError as error:
            self.add(
                f"{what}: the GPU has not enough memory ({str(error).splitlines()[0]}). Give "
                "smaller batches (dataloader.train.total_batch_size; train.accumulate keeps the "
                "images of an iteration), smaller images, more GPUs, or train.amp.enabled=True"
            )
        except Exception as error:  # of anything that a config may call
            if self._is_known(place):
                self.not_tried.append(what)
            else:
                self.add(f"{what}: {described(error)}")
        return None

    def add(self, *problems: str) -> None:
        """Take up problems, unless they are known."""
        self.problems += [problem for problem in problems if problem not in self.problems]

    def _is_known(self, place: str | tuple[str, ...]) -> bool:
        return any(problem.startswith(place) for problem in self.known)


def described(error: Exception) -> str:
    """An error with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, (ValueError, FloatingPointError)) or not frames:  # they say what it is
        return str(error) or type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"
