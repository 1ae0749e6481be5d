"""The process is left as it was: random generators, registered datasets, cuDNN."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...random_state import kept_random_state

_HASH_SEED = "PYTHONHASHSEED"  # which detectron2 sets with the seeds


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Put back what a run changes for the whole process.

    A dataset that is loaded names its classes in detectron2's catalog, and an evaluator may leave
    there the file that it made of one.
    """
    hash_seed = os.environ.get(_HASH_SEED)
    benchmark = torch.backends.cudnn.benchmark
    datasets = dict(DatasetCatalog.data)
    metadata = {name: (entry, dict(vars(entry))) for name, entry in MetadataCatalog.data.items()}
    try:
        with kept_random_state():
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        if hash_seed is None:
            os.environ.pop(_HASH_SEED, None)
        else:
            os.environ[_HASH_SEED] = hash_seed
        DatasetCatalog.data = datasets
        MetadataCatalog.data = {name: entry for name, (entry, _) in metadata.items()}
        for entry, attributes in metadata.values():
            vars(entry).clear()
            vars(entry).update(attributes)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What dense_kd warns of in its log meanwhile."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, collector = logging.getLogger("dense_kd"), Collector(logging.WARNING)
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
