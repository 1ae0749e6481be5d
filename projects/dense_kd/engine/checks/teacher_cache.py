"""Whether images can come again as a teacher's cache has them: in the same pixels and padding."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig

from ...arguments import is_integer, is_number
from ...detectors.base.images import padding
from ...teacher import Teacher
from ...teacher_cache import IN_MEMORY
from .files import folder_problems
from .tree import calls_of, is_call_of, select, target_of

Size = tuple[int, int]
"""(height, width)"""

LEAST_SHARE = 0.5
"""Of the images of a second epoch that have to meet the padding of the first."""

_LOADERS = ("train", "unlabelled")
_SIMULATED = 4000  # images, more than enough to tell a share
_OUT = "leave out the cache ({place}=null)"


def problems(cfg: DictConfig) -> Iterator[str]:
    """Those that the config shows: what its augmentations make of an image, and the folder."""
    for place, folder, by in _cached(cfg):
        if folder != IN_MEMORY:
            yield from folder_problems(place, folder)
        if by == "batch":  # of another run, which may have made anything of an image
            continue
        for part in _LOADERS:
            if select(cfg, f"dataloader.{part}") is not None:
                yield from _mapper_problems(cfg, place, folder, f"dataloader.{part}.mapper")


def _mapper_problems(cfg: DictConfig, place: str, folder: str, of: str) -> Iterator[str]:
    mapper = select(cfg, of)
    if not is_call_of(mapper, DatasetMapper):
        target = target_of(mapper) if isinstance(mapper, DictConfig) else mapper
        yield (
            f"{place}={folder}: of {of}={getattr(target, '__name__', target)} it is not known "
            "whether an image comes again with the same pixels, as it is of detectron2's "
            f"DatasetMapper; {_OUT.format(place=place)}"
        )
        return
    listed = select(mapper, "augmentations")
    for index, node in enumerate(listed if isinstance(listed, ListConfig) else ()):
        why = _varies(node)
        if why:
            yield (
                f"{place}={folder}: {of}.augmentations.{index} {why}, so that hardly an image "
                "comes again with the same pixels; a cache serves flips and a resizing to one "
                f"size. Change the augmentation, or {_OUT.format(place=place)}"
            )


def image_problems(cfg: DictConfig, images: Any, part: str = "train") -> Iterator[str]:
    """Those that the loaded images show: paddings that differ from batch to batch.

    Args:
        cfg: without :func:`problems`.
        images: the dataset dicts of a loader.
        part: "train" or "unlabelled", which loader.
    """
    cached = [(place, folder) for place, folder, by in _cached(cfg) if by != "batch"]
    if not cached:
        return
    loader = cfg.dataloader[part]
    total = select(loader, "total_batch_size", 1)
    batch = total // comm.get_world_size() if is_integer(total) else 1
    sizes = [*map(size_of, images)] if isinstance(images, Sequence) else []
    augmentations = select(loader, "mapper.augmentations") or ()
    seen, multiple = resized(sizes, augmentations), _padding_of(cfg)
    grouped = select(loader, "aspect_ratio_grouping", True) is not False
    for place, folder in cached:
        without = _OUT.format(place=place)
        yield from padding_problems(
            f"{place}={folder}", sizes, seen, batch, multiple, grouped, without
        )


def padding_problems(
    given: str,
    sizes: Sequence[Size | None],
    seen: Sequence[Size | None],
    batch: int,
    multiple: int,
    grouped: bool = True,
    without: str = _OUT.format(place="model.teacher.cache"),
) -> Iterator[str]:
    """That batches would be padded to the largest of their images, which are of unlike sizes.

    Args:
        given: the option that asks for the cache, for the message.
        sizes: of the images in their files; None where it is not known.
        seen: as the detectors see them.
        batch: images at a time in a process.
        multiple: that batches are padded to, in pixels; 0: all to one size.
        grouped: wide and high images come in batches of their own, as detectron2 does it.
        without: how to do without the cache.
    """
    known = [size for size in seen if size is not None]
    if batch <= 1 or multiple == 0:
        return
    if len(known) < len(seen) or not known:
        yield (
            f"{given}: the dataset does not say the sizes of all images (height, width), so it is "
            f"not known whether they meet the same padding again in batches of {batch}; give "
            f"batches of one image, or {without}"
        )
        return
    groups = [grouped and size is not None and size[1] > size[0] for size in sizes]
    share = _share_of_hits(known, groups, batch, multiple)
    if share < LEAST_SHARE:
        yield (
            f"{given}: images of {len(set(known))} sizes come in batches of {batch}, each padded "
            f"to its largest image, and in a second epoch {100 * share:.0f} % would meet the "
            "padding of the first. Give batches of one image per process (total_batch_size), "
            "resize all to one size (detectron2's T.Resize, or images of one shape), or " + without
        )


def _cached(cfg: DictConfig) -> Iterator[tuple[str, str, str]]:
    """(place of the option, its value, what comes again) of each teacher with a cache."""
    for place, teacher in calls_of(cfg.model, "model", Teacher):
        cache = select(teacher, "cache")
        if isinstance(cache, str) and cache.strip():
            yield f"{place}.cache", cache, select(teacher, "cache_by", "image")


def _varies(node: Any) -> str | None:
    """Why an augmentation makes an image of other pixels each time; None if it does not."""
    target = target_of(node) if isinstance(node, DictConfig) else None
    name = getattr(target, "__name__", str(node).splitlines()[0])
    if target is T.RandomFlip or target is T.Resize:
        return None
    if target is T.ResizeShortestEdge:
        edges = select(node, "short_edge_length")
        edges = [edges] if is_number(edges) else [*(edges or ())]
        return None if len(set(edges)) == 1 else f"resizes to one of several sizes ({name})"
    if target is T.ResizeScale:
        low, high = select(node, "min_scale"), select(node, "max_scale")
        return None if low == high else f"resizes to one of several sizes ({name})"
    known = getattr(target, "__module__", "") == T.RandomFlip.__module__
    if known:
        return f"changes the image at random ({name})"
    return f"is {name}, of which it is not known whether it changes the image at random"


def resized(sizes: Iterable[Size | None], augmentations: Iterable[Any]) -> list[Size | None]:
    """What the resizing among augmentations makes of sizes; None stays.

    Args:
        sizes: of images.
        augmentations: LazyCalls, of which :func:`problems` has none.
    """
    resizing = [instantiate(each) for each in augmentations if target_of(each) is not T.RandomFlip]
    made: dict[Size | None, Size | None] = {None: None}
    state = np.random.get_state()  # some draw from a range of one number
    for size in sizes:
        if size is not None and size not in made:
            made[size] = functools.reduce(_output, resizing, size)
    np.random.set_state(state)
    return [made[size] for size in sizes]


def _output(size: Size, augmentation: Any) -> Size:
    # Of an image that takes no memory: its shape is all that is asked for.
    transform = augmentation.get_transform(np.broadcast_to(np.uint8(0), (*size, 3)))
    return int(getattr(transform, "new_h", size[0])), int(getattr(transform, "new_w", size[1]))


def size_of(image: Any) -> Size | None:
    """Of a dataset dict; None where it does not say it."""
    if not isinstance(image, Mapping):
        return None
    height, width = image.get("height"), image.get("width")
    return (height, width) if is_integer(height) and is_integer(width) else None


def _padding_of(cfg: DictConfig) -> int:
    """What batches of the student are padded to a multiple of; 0: all to one size."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            multiple, square = padding(instantiate(cfg.model.student.backbone))
    except Exception:  # whatever it is, building the model says it
        return 32
    return 0 if square else multiple


def _share_of_hits(
    sizes: Sequence[Size], groups: Sequence[bool], batch: int, multiple: int
) -> float:
    """Of the images of a second epoch, those that meet the padding of the first, by trying."""
    draw = random.Random(0)
    chosen = draw.sample(range(len(sizes)), min(len(sizes), _SIMULATED))
    seen: set[tuple[int, tuple[int, ...]]] = set()
    waiting: dict[bool, list[int]] = {False: [], True: []}
    asked = found = 0
    for epoch in range(2):
        draw.shuffle(chosen)
        for index in chosen:
            group = waiting[groups[index]]
            group.append(index)
            if len(group) < batch:
                continue
            padded = tuple(
                -(-max(side) // multiple) for side in zip(*map(sizes.__getitem__, group))
            )
            met = {(image, padded) for image in group}
            if epoch == 1:
                asked += batch
                found += len(met & seen)
            seen |= met
            group.clear()
    return found / asked if asked else 1.0
