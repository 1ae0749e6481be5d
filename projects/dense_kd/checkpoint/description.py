"""The entry of a checkpoint that describes its detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import CheckpointError

ENTRY = "dense_kd"
"""Its name beside "model" in a checkpoint."""

FORMAT = 1
"""Of what the entry holds; a later one may mean something else by the same names."""


@dataclass(frozen=True)
class Description:
    """All that is needed to build a detector and to show it an image as its evaluation did.

    Attributes:
        model: described calls (see :mod:`dense_kd.description`); of a distillation, the student's.
            None if it cannot be described.
        class_names: K names, or None if they are not known.
        category_ids: K ids of the classes in their dataset, None if they are 0 to K-1.
        image_format: of its images, as for ``detectron2.data.detection_utils.read_image``.
        augmentations: described calls of what is done to an image before it is detected on. None
            if they cannot be described.
        incomplete: why a part is None that cannot be described, "" if there is none.
    """

    model: dict[str, Any] | None
    class_names: list[str] | None = None
    category_ids: list[int] | None = None
    image_format: str = "BGR"
    augmentations: list[Any] | None = field(default_factory=list)
    incomplete: str = ""

    def content(self) -> dict[str, Any]:
        """The entry, in containers, texts and numbers."""
        return {"format": FORMAT, **asdict(self)}


def description_of(content: Any, source: str) -> Description | None:
    """The description in the content of a checkpoint, or None if it has none.

    Args:
        content: as :func:`dense_kd.checkpoint.read_content` gives it.
        source: the file, for errors.

    Raises:
        CheckpointError: the entry is damaged, or of a later version of this package.
    """
    entry = content.get(ENTRY) if isinstance(content, Mapping) else None
    if entry is None:
        return None
    number = entry.get("format") if isinstance(entry, Mapping) else None
    number = number if type(number) is int else 0
    if number > FORMAT:
        raise CheckpointError(
            f"{source} describes its detector in format {number}, this version of dense_kd knows "
            f"{FORMAT}; take a later version, or give the config of the run (config=)"
        )
    names = set(Description.__dataclass_fields__)
    if number != FORMAT or set(entry) != {"format", *names}:
        found = sorted(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise CheckpointError(
            f"the entry {ENTRY!r} of {source} is {found}; expected format {FORMAT} with "
            f"{', '.join(sorted(names))}"
        )
    description = Description(**{name: entry[name] for name in names})
    problem = _problem(description)
    if problem:
        raise CheckpointError(f"the entry {ENTRY!r} of {source} is damaged: {problem}")
    return description


def _problem(description: Description) -> str:
    classes, ids = description.class_names, description.category_ids
    if not (classes is None or _all(classes, str)):
        return "class_names are no texts"
    if not (ids is None or (_all(ids, int) and classes is not None and len(ids) == len(classes))):
        return "category_ids are not one number for each class"
    if not isinstance(description.image_format, str):
        return "image_format is no text"
    if not (description.augmentations is None or isinstance(description.augmentations, list)):
        return "augmentations is no list"
    if not isinstance(description.incomplete, str):
        return "incomplete is no text"
    if not (description.model is None or isinstance(description.model, dict)):
        return "model is no described call"
    return ""


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
