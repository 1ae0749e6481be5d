"""A mapper whose errors say of which image they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DenseKDError
from .build import DatasetError

Mapper = Callable[[dict[str, Any]], Any]


class NamedErrors:
    """Any mapper of a loader; what a damaged image gives becomes an error with its name.

    Headers are read before a run, pixels as they are needed, in the middle of it: Pillow's
    "unrecognized data stream contents" of one of 100,000 files would help nobody.
    """

    def __init__(self, mapper: Mapper, *, every_image: bool = False):
        """
        Args:
            mapper: from a dict of detectron2's standard dataset format to what a model takes.
            every_image: whether None is an error, too. A training takes another image in its
                place; so does detectron2's loader in an evaluation, which would then count that
                one twice and the other as missed.
        """
        if not callable(mapper):
            raise TypeError(f"mapper={mapper!r}: expected a DatasetMapper, or another function")
        self.mapper = mapper
        self.every_image = every_image

    def __call__(self, record: dict[str, Any]) -> Any:
        """What the mapper gives.

        Raises:
            DatasetError: the mapper failed; ``__cause__`` is its error. Or it gave None.
        """
        name = record.get("file_name") if isinstance(record, Mapping) else None
        try:
            mapped = self.mapper(record)
        except DenseKDError:
            raise
        except Exception as error:  # Pillow's decoders raise what they come across first
            raise DatasetError(
                f"{name or 'an image'} cannot be used: {type(error).__name__}: {error}. If it is "
                "damaged, replace it or take it out of the annotations"
            ) from error
        if mapped is None and self.every_image:
            raise DatasetError(
                f"the mapper gives None for {name or 'an image'}; expected a dict of every image "
                "that is evaluated. Take those that are not to be out of the dataset"
            )
        return mapped
