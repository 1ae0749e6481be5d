"""Which annotations and images the runs of a report were evaluated on, and where they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..checkpoint.digests import file_digest
from ..data import bccd
from ..data.of_distillation import place_of_part
from ..engine.state.stored_config import at

__all__ = ["EvaluationData", "evaluation_data"]


@dataclass(frozen=True)
class EvaluationData:
    """The dataset of an evaluation.

    Attributes:
        name: of detectron2's catalog.
        annotations: COCO's file, None if it is not known or not there.
        images: the folder of its images, None if that is not known.
        missing: why there are no annotations, "" if there are.
        digest: of the annotations, "" if there are none.
    """

    name: str
    annotations: Path | None
    images: Path | None
    missing: str
    digest: str

    @property
    def key(self) -> str:
        """Equal for the same data."""
        return self.digest or self.name

    def __str__(self) -> str:
        return f"{self.name} ({self.annotations})" if self.annotations else self.name


def evaluation_data(
    config: Mapping[str, Any],
    distillation: Path | None,
    annotations: str | None = None,
    images: str | None = None,
) -> EvaluationData:
    """What a run was evaluated on.

    Args:
        config: of the run.
        distillation: the folder of ``dense-kd distill`` that the run is a part of, if any.
        annotations, images: files that are known better than the names of the config say.
    """
    names = at(config, "dataloader.test.dataset.names")
    names = [names] if isinstance(names, str) else names
    name = (isinstance(names, list) and ", ".join(map(str, names))) or "an unknown dataset"
    file, folder = _places(name, distillation)
    file = annotations or file
    folder = images or folder
    path = Path(file) if file else None
    root = Path(folder) if folder else None
    if path is None:
        missing = (
            f"where the annotations of {name} are is not known here; give them with --annotations "
            "FILE and the folder of the images with --image-root FOLDER"
        )
        return EvaluationData(name, None, root, missing, "")
    if not path.is_file():
        missing = (
            f"the annotations of {name}, {path}, are not there; $DETECTRON2_DATASETS names the "
            "folder of datasets, --annotations FILE a file"
        )
        return EvaluationData(name, None, root, missing, "")
    return EvaluationData(name, path, root, "", file_digest(path))


def _places(name: str, distillation: Path | None) -> tuple[str | None, str | None]:
    """(annotations, folder of the images) of a dataset, None where nobody knows."""
    part = name.rpartition("_")[2]
    if distillation is not None:
        file, images = place_of_part(distillation, part)
        return str(file), images
    if name.startswith("bccd_") and part in bccd.SPLITS:
        root = bccd.default_bccd_root()
        return os.path.join(root, bccd.JSON_FOLDER, f"{part}.json"), root
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        return metadata.get("json_file"), metadata.get("image_root")
    return None, None
