"""The distillation methods of the package, from their classes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from ..methods import KDMethod, Needs, method_classes
from .configs import chosen
from .texts import first_sentence

_WORDS = {
    "same_priors": "the same anchors",
    "as_many_levels": "as many levels",
    "same_levels": "the same levels",
    "same_classes": "the same classes or a class map",
    "several_classes": "two classes or more",
    "distribution": "distributions over distances",
    "ground_truth": "ground truth",
    "network": "a network of its own",
}


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """A method.

    Attributes:
        name: of its class.
        summary: what it does.
        paper: what its module says it is from.
        needs: what it asks of student, teacher and images with its default options, in words.
    """

    name: str
    summary: str
    paper: str
    needs: list[str]


def methods(patterns: Sequence[str] = ()) -> list[MethodEntry]:
    """The methods of ``dense_kd.methods``, by name.

    Args:
        patterns: as of :func:`.configs.chosen`.
    """
    kinds = method_classes()
    return [_entry(kinds[name]) for name in chosen(names(), patterns)]


def names() -> list[str]:
    """Of the classes of all of them."""
    return [*method_classes()]


def needs_in_words(needs: Needs) -> list[str]:
    """What :class:`dense_kd.methods.Needs` holds, as one reads it."""
    return [*_words(needs)]


def _words(needs: Needs) -> Iterator[str]:
    for field in dataclasses.fields(needs):
        value = getattr(needs, field.name)
        if field.name in ("taps", "student_taps"):
            depths: dict[int, list[str]] = {}
            for branch, depth in value:
                depths.setdefault(depth, []).append(branch)
            for depth, branches in depths.items():
                yield f"towers of {depth} or more blocks ({' and '.join(branches)})"
        elif value and field.name not in ("predictions", "features"):  # which every teacher has
            alone = field.name == "network" and not needs.detector
            yield _WORDS[field.name] + (", which may be all that teaches" if alone else "")


def _entry(kind: type[KDMethod]) -> MethodEntry:
    return MethodEntry(
        kind.__name__,
        first_sentence(kind.__doc__),
        first_sentence(sys.modules[kind.__module__].__doc__),
        needs_in_words(kind().needs),
    )
