"""Which class of the student is which class of the teacher, where their classes differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Optional, Union

import torch
from torch import Tensor

from ...detectors.base.dense import DenseDetector

Class = Union[int, str]
ClassMap = Union[str, Mapping[Class, Class], None]
"""None: the classes are the same in the same order. "by_name": classes of equal name correspond.
A mapping: {class of the teacher: class of the student}, by index or name. Names are the
``class_names`` of the detectors."""

BY_NAME = "by_name"

Pairs = Optional[list[tuple[int, int]]]
"""[(index in the student, index in the teacher)] of classes, or None if all correspond in order."""


def class_pairs(class_map: ClassMap, student: DenseDetector, teacher: DenseDetector) -> Pairs:
    """The classes that correspond.

    Classes without a counterpart take no part in a comparison of class scores.

    Raises:
        ValueError: no class corresponds, a class is unknown or taken twice, or ``class_map`` is
            None and the numbers (or the known names) of the classes differ.
    """
    if class_map is None:
        _check_same(student, teacher)
        return None
    if class_map == BY_NAME:
        ours, theirs = _names("student", student), _names("teacher", teacher)
        pairs = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
        if not pairs:
            raise ValueError(
                f"class_map='by_name': no class of the student {ours[:10]} has the name of one of "
                f"the teacher {theirs[:10]}; map them with class_map={{teacher: student}}"
            )
    elif isinstance(class_map, Mapping):
        pairs = [
            (_index("student", student, ours), _index("teacher", teacher, theirs))
            for theirs, ours in class_map.items()
        ]
        if not pairs:
            raise ValueError("class_map={} maps no class; give {teacher: student} or None")
        for role, indices in zip(("student", "teacher"), zip(*pairs)):
            twice = [index for index, count in Counter(indices).items() if count > 1]
            if twice:
                raise ValueError(
                    f"class_map={dict(class_map)} names the classes {twice} of the {role} more "
                    "than once; each can have one counterpart"
                )
        pairs.sort()
    else:
        raise ValueError(
            f"class_map={class_map!r}: expected None, 'by_name' or {{teacher: student}}"
        )
    return _simplest(pairs, student, teacher)


def correspondence(
    student: DenseDetector, teacher: DenseDetector, maps: Mapping[str, ClassMap]
) -> Pairs:
    """The classes that correspond by all of ``maps`` together.

    Without any it is those of equal name; where not both have names, all in order if they are
    equally many, and else none.

    Args:
        student, teacher: detectors.
        maps: {whose, in words: its class_map}.

    Raises:
        ValueError: as :func:`class_pairs`, or a class has two counterparts.
    """
    if not maps:
        ours, theirs = student.class_names, teacher.class_names
        if ours is None or theirs is None:
            return None if student.num_classes == teacher.num_classes else []
        pairs = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
        return _simplest(pairs, student, teacher)
    known: dict[str, dict[int, tuple[int, str]]] = {"student": {}, "teacher": {}}
    for whose, class_map in maps.items():
        found = class_pairs(class_map, student, teacher)
        in_order = [(k, k) for k in range(student.num_classes)]
        for pair in in_order if found is None else found:
            for role, index, other in zip(known, pair, pair[::-1]):
                before, by = known[role].setdefault(index, (other, whose))
                if before != other:
                    counterpart = "teacher" if role == "student" else "student"
                    raise ValueError(
                        f"class {index} of the {role} is class {before} of the {counterpart} by "
                        f"{by}, and class {other} by {whose}; give both the same class_map, or "
                        "leave one of them out"
                    )
    pairs = sorted((ours, theirs) for ours, (theirs, _) in known["student"].items())
    return _simplest(pairs, student, teacher)


def counterparts(pairs: Pairs, student: DenseDetector) -> Tensor | None:
    """(K of the student,): the teacher's class of each, 0 without one; None if all correspond in
    order."""
    if pairs is None:
        return None
    classes = torch.zeros(student.num_classes, dtype=torch.int64, device=student.device)
    for ours, theirs in pairs:
        classes[ours] = theirs
    return classes


def _simplest(
    pairs: list[tuple[int, int]], student: DenseDetector, teacher: DenseDetector
) -> Pairs:
    if student.num_classes == teacher.num_classes == len(pairs) and all(s == t for s, t in pairs):
        return None
    return pairs


def _check_same(student: DenseDetector, teacher: DenseDetector) -> None:
    hint = "; give class_map='by_name' or class_map={teacher: student}"
    if student.num_classes != teacher.num_classes:
        raise ValueError(
            "it compares class scores and needs equal classes, but the student has "
            f"num_classes={student.num_classes} and the teacher {teacher.num_classes}{hint}"
        )
    ours, theirs = student.class_names, teacher.class_names
    if ours and theirs and ours != theirs:
        first = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
        raise ValueError(
            f"it compares class scores one to one, but class {first} is {ours[first]!r} in the "
            f"student and {theirs[first]!r} in the teacher{hint}"
        )


def _names(role: str, detector: DenseDetector) -> list[str]:
    if detector.class_names is None:
        raise ValueError(
            f"class_map needs the names of the {role}'s classes; set class_names of its model, "
            "for example to MetadataCatalog.get(<dataset>).thing_classes"
        )
    return detector.class_names


def _index(role: str, detector: DenseDetector, wanted: Class) -> int:
    if isinstance(wanted, str):
        names = _names(role, detector)
        if wanted not in names:
            raise ValueError(f"class_map: the {role} has no class {wanted!r}; it has {names}")
        return names.index(wanted)
    if not 0 <= wanted < detector.num_classes:
        raise ValueError(
            f"class_map: the {role} has no class {wanted}; it has 0 to {detector.num_classes - 1}"
        )
    return wanted
