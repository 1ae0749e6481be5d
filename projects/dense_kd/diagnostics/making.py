"""The figures of an image, those of them that its detectors and annotations allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from ..detectors import DenseDetector
from ..distiller import Distiller
from ..methods import CrossKD
from ..outputs import DensePass
from .errors import DiagnosticsError
from .figures import (
    MapFigure,
    bckd_figure,
    crosskd_figure,
    gradient_figure,
    pgd_figure,
    tid_figure,
)
from .methods_of_pair import method_of
from .passes import evaluating, run_passes, training_losses

__all__ = ["FIGURES", "OF_OBJECTS", "FigureMaker", "check_figures"]

FIGURES = ("bckd", "crosskd", "gradients", "pgd", "tid")
OF_OBJECTS = ("gradients", "pgd", "tid")
"""Those that need the objects of an image."""


class FigureMaker:
    """Makes figures of images, one by one."""

    def __init__(
        self,
        model: Distiller,
        what: Sequence[str] = FIGURES,
        *,
        untrained: Collection[str] = (),
        other: DenseDetector | None = None,
        category: int | None = None,
        category_name: str | None = None,
        index: int | None = None,
    ):
        """
        Args:
            model: with its weights; the teacher's are loaded if they are not.
            what: some of :data:`FIGURES`.
            untrained: names of its methods whose own parameters are those of no run.
            other: another student, for BCKD's figure.
            category: a class of the student, for CrossKD's figure; None: all.
            category_name: of that class.
            index: of the object of PGD's figure; None: the largest.

        Raises:
            DiagnosticsError: ``what`` names a figure that there is not, or one twice, or nothing.
        """
        check_figures(what)
        self.model, self.what, self.other = model, tuple(what), other
        self.category, self.category_name, self.index = category, category_name, index
        self.untrained = tuple(untrained)
        self.crosskd: CrossKD | None = None
        self.no_cross = ""
        if "crosskd" not in what:
            return
        try:
            found = method_of(model, CrossKD)
        except DiagnosticsError as error:
            self.no_cross = f"it is without the cross-head prediction: {error}"
            return
        names = [name for name, method in model.kd.named_methods() if method is found]
        if set(names) & set(untrained):
            self.no_cross = (
                "it is without the cross-head prediction: the checkpoint does not have the "
                f"convolutions that {names[0]} trains; give one of its run"
            )
            return
        self.crosskd = found

    def figures(
        self, inputs: dict[str, Any], no_truth: str = ""
    ) -> tuple[dict[str, MapFigure], dict[str, str]]:
        """{name: figure} of an image, and {name: why it is not, or not whole}.

        Args:
            inputs: of detectron2's DatasetMapper, with or without "instances".
            no_truth: why it has none, if there is more to say of it.
        """
        passes = run_passes(self.model, [inputs], self.crosskd)
        other: DensePass | None = None
        if self.other is not None:
            with torch.no_grad(), evaluating(self.other):
                other = self.other.run(self.other.preprocess_image([inputs]))
        makers: Mapping[str, Callable[[], MapFigure]] = {
            "bckd": lambda: bckd_figure(self.model, passes, other),
            "crosskd": lambda: crosskd_figure(
                self.model, passes, self.category, self.category_name
            ),
            "gradients": lambda: self._gradients(inputs, passes.level_names),
            "pgd": lambda: pgd_figure(self.model, passes, self.index),
            "tid": lambda: tid_figure(self.model, passes),
        }
        found, left_out = {}, {}
        for name in self.what:
            if name in OF_OBJECTS and no_truth:
                left_out[name] = no_truth
                continue
            try:
                found[name] = makers[name]()
            except DiagnosticsError as error:
                left_out[name] = str(error)
        if self.no_cross and "crosskd" in found:
            left_out["crosskd"] = self.no_cross
        return found, left_out

    def _gradients(self, inputs: dict[str, Any], level_names: list[str]) -> MapFigure:
        if "instances" not in inputs:
            raise DiagnosticsError("losses need the objects of the image; it has no annotations")
        if self.untrained:
            raise DiagnosticsError(
                f"the checkpoint does not have the parameters that {', '.join(self.untrained)} "
                "trains, and their gradients would be of random ones; give one of its run"
            )
        losses, student = training_losses(self.model, [inputs])
        return gradient_figure(self.model, losses, student, level_names)


def check_figures(what: Sequence[str]) -> None:
    """Raise DiagnosticsError unless these are some of :data:`FIGURES`, each once."""
    if any(name not in FIGURES for name in what) or not 0 < len(what) == len(set(what)):
        raise DiagnosticsError(
            f"figures {','.join(map(str, what))!r}: expected one or more of {', '.join(FIGURES)}, "
            "each once"
        )
