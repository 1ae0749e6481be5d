"""The data part of a run config for own images."""

from __future__ import annotations

from omegaconf import DictConfig

from ..config import get_config

__all__ = ["own_dataloader"]


def own_dataloader(
    *,
    train: str,
    test: str,
    short_edge: int,
    long_edge: int,
    batch_size: int,
    image_format: str,
    seed: int,
    num_workers: int,
) -> DictConfig:
    """``dataloader`` of registered datasets, as COCO's recipe has it.

    Images without objects are learnt from too, for whoever has put them there knows why.

    Args:
        train, test: names in detectron2's DatasetCatalog.
        short_edge, long_edge: images are resized to this short edge, or less where the long one
            would be above ``long_edge``.
        batch_size: of an iteration, over all processes.
        image_format: the detector's ``input_format``.
        seed: of the order of the images.
        num_workers: of each process.
    """
    dataloader = get_config("common/data/coco.py").dataloader
    for part, names in (("train", train), ("test", test)):
        loader = dataloader[part]
        loader.dataset.names = names
        loader.mapper.image_format = image_format
        loader.num_workers = num_workers
        resize = loader.mapper.augmentations[0]
        resize.short_edge_length = [short_edge] if part == "train" else short_edge
        resize.max_size = long_edge
    dataloader.train.dataset.filter_empty = False
    dataloader.train.total_batch_size = batch_size
    dataloader.train.seed = seed
    return dataloader
