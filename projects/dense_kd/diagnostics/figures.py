"""The papers' figures of one image: which maps they put side by side, and on which scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..distiller import Distiller
from ..methods import BCKD, PGD, TID
from ..outputs import DensePass
from .errors import DiagnosticsError
from .gradients import DETECTION, gradient_maps, loss_groups, touched_features
from .locations import compared_classes
from .maps import (
    BOUND,
    Levels,
    assigned_classes,
    class_scores,
    foreground_masks,
    largest_of_levels,
    score_sum_error,
    student_sum_error,
    task_values,
)
from .methods_of_pair import method_of
from .passes import Passes

__all__ = ["MapFigure", "MapPanel", "MapRow", "bckd_figure", "crosskd_figure", "gradient_figure",
           "pgd_figure", "tid_figure"]  # fmt: skip

QUALITY = "quality"
STRATEGIES = {
    "box": "box",
    "box_gaussian": "Gaussian of the box",
    "center": "centre",
    QUALITY: "quality of the teacher",
    "topk": "top K",
    "kde": "kernel density",
    "ours": "PGD",
}
"""{strategy: title} of PGD's Table 5, in its order."""

ALL_LEVELS = "all levels"


@dataclass(frozen=True)
class MapPanel:
    """One map.

    Attributes:
        level: its name.
        values: (Hl, Wl) or, over all levels, (H1, W1).
        stride: of a cell, in pixels of the network's input.
    """

    level: str
    values: np.ndarray
    stride: int

    @property
    def place(self) -> str:
        """The level in words."""
        return self.level if self.level == ALL_LEVELS else f"{self.level} (stride {self.stride})"


@dataclass(frozen=True)
class MapRow:
    """Maps of one quantity on one scale.

    Attributes:
        name: of its arrays.
        title: whose it is, in words.
        panels: from the finest level.
        unit: what the scale counts.
        low, high: ends of the scale.
        signed: whether 0 is its middle.
    """

    name: str
    title: str
    panels: list[MapPanel]
    unit: str
    low: float = 0.0
    high: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class MapFigure:
    """Rows of maps of one image.

    Attributes:
        title: of the figure.
        rows: from the top.
        boxes: (M, 4), objects to be drawn into the image, in pixels of the network's input.
    """

    title: str
    rows: list[MapRow]
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """{row and level, as "teacher_p3": values}."""
        return {
            f"{row.name}_{panel.level.lower().replace(' ', '_')}": panel.values
            for row in self.rows
            for panel in row.panels
        }


def bckd_figure(model: Distiller, passes: Passes, other: DensePass | None = None) -> MapFigure:
    """BCKD's Figure 3: where the sums of class scores differ from the teacher's.

    Args:
        model: the distiller.
        passes: of one image.
        other: the pass of another student, a baseline, over it.

    Raises:
        DiagnosticsError: the predictions of the two do not correspond.
    """
    method, unit = method_of(model, BCKD), f"|difference|, at most {BOUND:g}"
    errors = score_sum_error(method, passes.student, passes.teacher)
    rows = [_row(passes, "student", "teacher - student", errors, unit, high=BOUND)]
    if other is not None:
        baseline = score_sum_error(method, other, passes.teacher)
        between = student_sum_error(passes.student, other)
        won = [b - a for a, b in zip(errors, baseline)]
        rows += [
            _row(passes, "other", "teacher - other student", baseline, unit, high=BOUND),
            _row(passes, "reduction", "less error than the other", won, "difference of both",
                 low=-BOUND, high=BOUND, signed=True),
            _row(passes, "between", "student - other student", between, unit, high=BOUND),
        ]  # fmt: skip
    return MapFigure("BCKD, Figure 3: errors of the class score sums", rows, _boxes(passes))


def crosskd_figure(
    model: Distiller, passes: Passes, category: int | None = None, name: str | None = None
) -> MapFigure:
    """CrossKD's Figure 2: class scores of teacher, cross-head prediction and student.

    Args:
        model: the distiller.
        passes: of one image; without ``cross`` or ``targets`` these rows are left out.
        category: a class of the student, or None for the largest of those that correspond.
        name: of the class, for the title.

    Raises:
        DiagnosticsError: there is no such class, or the teacher has none that corresponds.
    """
    theirs, of_student, of_teacher = category, None, None
    try:
        compared = compared_classes(model)
    except DiagnosticsError:
        if category is not None:
            raise
        compared = None
    if compared is not None:
        of_student, of_teacher = compared
        if category is not None:
            numbers = dict(zip(of_student.tolist(), of_teacher.tolist()))
            theirs = numbers.get(category)
            if theirs is None:
                raise DiagnosticsError(
                    f"category={category}: the teacher has no class that corresponds to it; "
                    f"expected one of {sorted(numbers)}"
                )
    passes_of = [("teacher", "teacher", passes.teacher, theirs, of_teacher)]
    if passes.cross is not None:
        passes_of.append(("cross", "cross-head", passes.cross, theirs, of_teacher))
    passes_of.append(("student", "student", passes.student, category, of_student))
    scores = {
        key: (title, class_scores(dense, category=wanted, classes=classes))
        for key, title, dense, wanted, classes in passes_of
    }
    high = _largest(levels for _, levels in scores.values())
    what = "largest class score" if category is None else f"score of {name or category}"
    rows = [_row(passes, k, t, levels, what, high=high) for k, (t, levels) in scores.items()]
    if passes.targets is not None:
        assigned = assigned_classes(passes.targets, passes.student, category=category)
        rows.insert(0, _row(passes, "targets", "targets of the student", assigned, "positive"))
    return MapFigure(f"CrossKD, Figure 2: {what}", rows, _boxes(passes))


def pgd_figure(model: Distiller, passes: Passes, index: int | None = None) -> MapFigure:
    """PGD's Figures 1 and 2: the teacher's quality for an object, and six more ways to weight it.

    Args:
        model: the distiller.
        passes: of one image with ground truth.
        index: of the object, None for the largest.

    Raises:
        DiagnosticsError: the image has no ground truth, no object or not this one, or the method
            cannot compare the two detectors.
    """
    truth = _truth(passes, "PGD")
    if len(truth) == 0:
        raise DiagnosticsError("PGD weights objects, and no object is annotated in the image")
    index = int(truth.gt_boxes.area().argmax()) if index is None else index
    method, teacher = method_of(model, PGD), passes.teacher
    masks = foreground_masks(method, teacher, truth, index, strategies=tuple(STRATEGIES))
    rows = [
        _row(passes, strategy, title, masks[strategy], "weight")
        for strategy, title in STRATEGIES.items()
        if strategy != QUALITY
    ]
    quality = masks[QUALITY]
    scale = _largest([quality])
    rows.insert(0, _row(passes, QUALITY, STRATEGIES[QUALITY], quality, "quality", high=scale))
    for row in rows:
        values = largest_of_levels([panel.values for panel in row.panels], teacher.strides)
        row.panels.insert(0, MapPanel(ALL_LEVELS, values, teacher.strides[0]))
    box = truth.gt_boxes.tensor[index : index + 1].cpu().numpy()
    return MapFigure("PGD, Figures 1 and 2: quality of an object, and its weights", rows, box)


def tid_figure(model: Distiller, passes: Passes) -> MapFigure:
    """TID's Figure 4: values of both tasks, their product, key and weak areas, and the weights.

    Args:
        model: the distiller.
        passes: of one image with ground truth.

    Raises:
        DiagnosticsError: the image has no ground truth, or the method cannot compare the two
            detectors.
    """
    truth, method = _truth(passes, "TID"), method_of(model, TID)
    values = task_values(method, passes.student, passes.teacher, truth)
    both = _largest([values["importance"], values["student_importance"]])
    titles: Mapping[str, tuple[str, str, float]] = {
        "cls": ("teacher, classification", "score (eq 2)", _largest([values["cls"]])),
        "loc": ("teacher, localisation", "score (eq 1)", _largest([values["loc"]])),
        "importance": ("teacher, both tasks", "score (eq 3)", both),
        "student_importance": ("student, both tasks", "score (eq 3)", both),
        "key": ("key areas", "value (eq 4)", _largest([values["key"]])),
        "weak": ("weak areas", "1: weak (eq 5)", 1.0),
        "weights": ("TID", "weight (eq 11)", _largest([values["weights"]])),
    }
    rows = [
        _row(passes, key, title, values[key], unit, high=high)
        for key, (title, unit, high) in titles.items()
    ]
    return MapFigure("TID, Figure 4: values of both tasks, and areas", rows, _boxes(passes))


def gradient_figure(
    model: Distiller, losses: Mapping[str, Tensor], student: DensePass, level_names: list[str]
) -> MapFigure:
    """CrossKD's Figure 5: what each method asks of the features that it acts on.

    These are the features of the towers that it reads, together those of both where it reads both,
    and else the pyramid, where the student's own losses are, too. Each row has a scale of its own.

    Args:
        model: the distiller.
        losses, student: of :func:`.passes.training_losses`, of one image.
        level_names: L names.
    """
    methods = dict(model.kd.named_methods())
    rows = []
    for name, loss in loss_groups(losses, methods).items():
        taps = () if name == DETECTION else methods[name].needs.taps_of_student
        places = touched_features(student, taps)
        of_places = [gradient_maps({name: loss}, features)[name] for features in places]
        found = [torch.stack(each).norm(dim=0)[0].cpu().numpy() for each in zip(*of_places)]
        where = " and ".join(f"{branch} tower {depth}" for branch, depth in taps) or "pyramid"
        kind = "detection losses" if name == DETECTION else type(methods[name]).__name__
        panels = [MapPanel(*each) for each in zip(level_names, found, student.strides)]
        rows.append(MapRow(name, f"{kind}, {where}", panels, "|gradient|", high=_largest([found])))
    return MapFigure("CrossKD, Figure 5: gradients at the features that losses act on", rows)


def _row(
    passes: Passes,
    name: str,
    title: str,
    levels: Levels,
    unit: str,
    *,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
) -> MapRow:
    named = zip(passes.level_names, levels, passes.student.strides)
    panels = [MapPanel(level, values, stride) for level, values, stride in named]
    return MapRow(name, title, panels, unit, low, high, signed)


def _truth(passes: Passes, method: str) -> Instances:
    if passes.ground_truth is None:
        raise DiagnosticsError(
            f"{method} needs the objects of the image, and it has no annotations; take an image of "
            "the config's test dataset"
        )
    return passes.ground_truth[0]


def _boxes(passes: Passes) -> np.ndarray:
    if passes.ground_truth is None:
        return np.zeros((0, 4), np.float32)
    return passes.ground_truth[0].gt_boxes.tensor.cpu().numpy()


def _largest(maps: Iterable[Levels]) -> float:
    """Of all values; 1 if none is above 0, for a scale."""
    return max((float(level.max()) for levels in maps for level in levels), default=0.0) or 1.0
