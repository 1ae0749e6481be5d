"""Images without labels: the loader that gives them, and what learns from them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from omegaconf import DictConfig

from ...data import TrainLoader, UnlabelledLoader, unlabelled_images
from ...distiller import Distiller
from .tree import is_call_of, select, target_of

_LOADER = "dataloader.unlabelled"


def problems(cfg: DictConfig) -> Iterator[str]:
    """Where the loader, the model and its pseudo-labels do not go together."""
    loader, given = select(cfg, _LOADER), select(cfg, "model.pseudo_labels")
    if loader is None:
        if given is not None:
            yield (
                f"model.pseudo_labels stands for the labels of images without any, and there is no "
                f"{_LOADER} that gives such images; add one, as in "
                "configs/quickstart/unlabelled.py, or give model.pseudo_labels=null"
            )
        return
    if not is_call_of(cfg.model, Distiller):
        name = getattr(target_of(cfg.model), "__name__", "of this config")
        yield (
            f"{_LOADER} gives images without labels, from which a model {name} cannot learn; "
            f"expected a Distiller, whose teacher says what is in them, or {_LOADER}=null"
        )
    for place, kind in ((_LOADER, UnlabelledLoader), ("dataloader.train", TrainLoader)):
        node = select(cfg, place)
        if not is_call_of(node, kind):
            target = target_of(node) if isinstance(node, DictConfig) else node
            yield (
                f"{place} is {getattr(target, '__name__', target)}; beside images without labels, "
                f"expected a dense_kd.data.{kind.__name__}"
            )
    dataset = select(loader, "dataset")
    if isinstance(dataset, DictConfig) and target_of(dataset) is unlabelled_images:
        folder = select(dataset, "folder")
        if not isinstance(folder, str) or not os.path.isdir(os.path.expanduser(folder)):
            yield f"{_LOADER}.dataset.folder={folder!r}: expected a folder with images"
