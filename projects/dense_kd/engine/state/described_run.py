"""What the checkpoints of a run say of its detector, see :mod:`dense_kd.checkpoint.description`."""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetMapper, MetadataCatalog
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ...checkpoint.description import Description
from ...description import IndescribableError, describe
from ..checks.data import dataset_names, detector_of
from ..checks.tree import select, target_of

_FAILURES = (IndescribableError, OmegaConfBaseException)  # or a value that was never needed


class DescribedRun:
    """Lets a checkpointer save the :class:`Description` of the detector that a run trains."""

    def __init__(self, cfg: DictConfig):
        self._cfg = cfg

    def state_dict(self) -> dict[str, Any]:
        """The entry; classes that only a loaded dataset tells are known when it is saved."""
        return describe_run(self._cfg).content()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep that of this run."""


def describe_run(cfg: DictConfig, mode: str = "evaluate") -> Description:
    """The detector of a run config: of a distillation, its student.

    Args:
        cfg: with ``model``; ``dataloader`` tells the classes and how images are shown to it, as
            far as it is there. References in it can be resolved.
        mode: "evaluate", or "evaluate_teacher" for the teacher of a distillation.
    """
    incomplete = []
    place, node = detector_of(cfg, mode)
    model = None
    try:
        model = describe(node, place)
    except _FAILURES as error:
        incomplete.append(str(error))
    augmentations: list[Any] | None = []
    mapper = select(cfg, "dataloader.test.mapper")
    if mapper is not None:
        try:
            augmentations = _augmentations(mapper)
        except _FAILURES as error:
            augmentations = None
            incomplete.append(str(error))
    names, ids = _classes(cfg, node)
    return Description(
        model=model,
        class_names=names,
        category_ids=ids,
        image_format=select(mapper, "image_format") or select(node, "input_format") or "BGR",
        augmentations=augmentations,
        incomplete="; ".join(incomplete),
    )


def _augmentations(mapper: Any) -> list[Any]:
    place = "dataloader.test.mapper"
    target = target_of(mapper) if isinstance(mapper, DictConfig) else mapper
    if not (isinstance(target, type) and issubclass(target, DatasetMapper)):
        raise IndescribableError(
            f"{place} is {target}, expected detectron2's DatasetMapper: what another one does to "
            "an image is not known"
        )
    return describe(select(mapper, "augmentations", []), f"{place}.augmentations")


def _classes(cfg: DictConfig, node: Any) -> tuple[list[str] | None, list[int] | None]:
    """Names of the classes and their ids in the dataset, as far as they are known by now."""
    own, number = select(node, "class_names"), select(node, "num_classes")
    for part in ("train", "test"):
        for dataset in dataset_names(cfg, part):
            if dataset not in MetadataCatalog:
                continue
            metadata = MetadataCatalog.get(dataset)
            names = [str(name) for name in metadata.get("thing_classes") or ()]
            if not names or number not in (None, len(names)):
                continue
            if own is not None and list(own) != names:
                continue
            index_of = metadata.get("thing_dataset_id_to_contiguous_id") or {}
            ids = [int(key) for key, _ in sorted(index_of.items(), key=lambda item: item[1])]
            return names, ids if len(ids) == len(names) else None
    return ([str(name) for name in own], None) if own is not None else (None, None)
