"""The datasets of a run, and a batch of each loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

from ...data.build import objects_of
from ...data.unlabelled import UNLABELLED
from ..checks.data import dataset_names
from ..checks.tree import select
from .results import BatchFacts, DataFacts

Batch = list[dict[str, Any]]


def data_facts(cfg: DictConfig, part: str, images: Any) -> DataFacts:
    """Of ``dataloader.train`` or ``dataloader.test``.

    Args:
        cfg: the config.
        part: "train" or "test".
        images: what the loader loads from, as :class:`dense_kd.engine.loaders.Loaded` has it.
    """
    names = dataset_names(cfg, part)
    found = [MetadataCatalog.get(name).get("thing_classes") for name in names]
    facts = DataFacts(names, classes=list(found[0]) if found and found[0] else None)
    if not isinstance(images, Sequence) or not images or not isinstance(images[0], Mapping):
        return facts
    counts = [Counter(_objects(image)) for image in images]
    total = sum(counts, Counter[int]())
    facts.num_images = len(images)
    if all("annotations" not in image for image in images):
        return facts
    facts.num_empty = sum(not count for count in counts)
    facts.num_objects = sum(total.values())
    classes = facts.classes or [str(i) for i in range(max(total, default=-1) + 1)]
    facts.objects_per_class = {name: total[index] for index, name in enumerate(classes)}
    return facts


def data_warnings(train: DataFacts) -> Iterator[str]:
    """What a student could not learn from this training set."""
    absent = [name for name, number in train.objects_per_class.items() if number == 0]
    if absent:
        yield (
            f"{len(absent)} of {len(train.objects_per_class)} classes have no object in the "
            f"training set ({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}): they "
            "cannot be learnt"
        )


def first_batch(batches: Iterator[Batch]) -> Batch:
    """The next of ``batches``.

    Raises:
        ValueError: there is none, or it is not what detectron2's loaders give.
    """
    batch = next(batches, None)
    if batch is None:
        raise ValueError("dataloader.train gives no batch; expected images for max_iter iterations")
    checked = [isinstance(x, Mapping) and "image" in x for x in batch]
    if not checked or not all(checked):
        raise ValueError(
            f"dataloader.train gives a {type(batch).__name__} of {len(batch)} items; expected a "
            "list of dicts with 'image' and 'instances', as detectron2's DatasetMapper makes them"
        )
    return batch


def first_images(loader: Any, number: int) -> list[Batch]:
    """The first batches of an evaluation, ``number`` images or all if there are fewer.

    Raises:
        ValueError: there is none.
    """
    batches: list[Batch] = []
    for batch in loader:
        batches.append(batch)
        if sum(map(len, batches)) >= number:
            break
    if not any(batches):
        raise ValueError("dataloader.test gives no image, so there is nothing to evaluate on")
    return batches


def batch_facts(cfg: DictConfig, part: str, batch: Batch) -> BatchFacts:
    """Of images that a loader gave."""
    sizes = sorted(((*x["image"].shape[-2:],) for x in batch), key=lambda size: size[0] * size[1])
    truths = [x["instances"] for x in batch if "instances" in x]
    return BatchFacts(
        num_images=len(batch),
        smallest=sizes[0],
        largest=sizes[-1],
        image_format=select(cfg, f"dataloader.{part}.mapper.image_format"),
        dtype=str(batch[0]["image"].dtype).removeprefix("torch."),
        num_objects=sum(map(len, truths)) if truths else None,
        num_unlabelled=sum(UNLABELLED in x for x in batch),
    )


def annotated(images: Any, batches: list[Batch]) -> list[dict[str, Any]] | None:
    """The dataset dicts of images that a test loader gave, whose mapper drops the objects.

    Args:
        images: of the dataset.
        batches: of its loader.

    Returns:
        one for each image of ``batches``; None if they cannot be told, or have no objects at all.
    """
    if not isinstance(images, Sequence):
        return None
    known = {image.get("image_id"): image for image in images if isinstance(image, dict)}
    wanted = [image.get("image_id") for batch in batches for image in batch]
    if None in wanted or any(key not in known or "annotations" not in known[key] for key in wanted):
        return None
    return [known[key] for key in wanted]


def _objects(image: Mapping[str, Any]) -> list[int]:
    return [each["category_id"] for each in objects_of(image) if "category_id" in each]
