"""Draws a validation set where a dataset has none."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..build import DatasetError
from .cleaning import Cleaning

# Roboflow writes several augmented versions of an image: "cell_jpg.rf.4f1e....jpg".
_VERSION = re.compile(r"\.rf\.[0-9A-Za-z]+$")


def draw(
    records: dict[str, list[dict[str, Any]]], cleaned: Cleaning, fraction: float, seed: int
) -> str:
    """Move some of the images for training to a new part "val".

    Copies of an image, and Roboflow's versions of one, stay together.

    Args:
        records: the images of each part; changed.
        cleaned: knows copies and names.
        fraction, seed: see :func:`draw_validation`.

    Returns:
        a sentence that says so.

    Raises:
        DatasetError: all images are copies of one.
    """
    train = records["train"]
    images, links = {}, {}
    for record in train:
        file = record["file_name"]
        name = cleaned.name(file)
        images[name] = [a["category_id"] for a in record["annotations"] if not a["iscrowd"]]
        version_of = _VERSION.sub("", os.path.splitext(name)[0])
        links[name] = (f"copies of {cleaned.copies.get(file, file)}", f"versions of {version_of}")
    groups = _connected(links)
    drawn = draw_validation(images, groups, fraction, seed)
    if not drawn:
        raise DatasetError(
            f"{cleaned.root}: no validation set can be drawn from {len(train)} images of "
            f"{len(set(groups.values()))} scenes; add images, or name a validation set"
        )
    records["val"] = [r for r in train if cleaned.name(r["file_name"]) in drawn]
    records["train"] = [r for r in train if cleaned.name(r["file_name"]) not in drawn]
    return (
        f"the dataset names no validation set: {len(drawn)} of its {len(train)} images were drawn "
        f"for val (val_fraction={fraction:g}, seed={seed})"
    )


def draw_validation(
    images: Mapping[str, Sequence[int]], groups: Mapping[str, str], fraction: float, seed: int
) -> set[str]:
    """The images that become the validation set.

    Groups of images stay together. Their order is that of hashes of ``seed`` and their names,
    so the result depends neither on the order of the files nor on where the dataset lies. Of
    each class with two groups or more, one stays behind for training, and one is taken first for
    validation as long as there is room. What is in one group alone is taken only where otherwise
    nothing could be.

    Args:
        images: the classes of the objects of each image, by its name.
        groups: the name of the group of each image.
        fraction: of the images, in (0, 1).
        seed: another one draws others.

    Returns:
        the names of the images drawn; at least one and fewer than all, if there are two groups.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images):
        members[groups[name]].append(name)
    classes = {
        group: {c for name in names for c in images[name]} for group, names in members.items()
    }
    order = sorted(members, key=lambda group: (_hash(seed, group), group))
    left = Counter(c for group in order for c in classes[group])
    total, wanted = len(images), max(1, round(fraction * len(images)))
    drawn: set[str] = set()
    count = 0

    def draw(group: str, keep: int) -> bool:
        """Take a group if ``keep`` others have each of its classes, and it fits."""
        nonlocal count
        size = len(members[group])
        fits = count + size <= wanted or not drawn
        if group in drawn or not fits or count + size >= total:
            return False
        if any(left[c] <= keep for c in classes[group]):
            return False
        drawn.add(group)
        left.subtract(classes[group])
        count += size
        return True

    # Rare classes first: a frequent one comes along with them.
    for rare in sorted(left, key=lambda c: (left[c], c)):
        if not any(rare in classes[group] for group in drawn):
            next((group for group in order if rare in classes[group] and draw(group, 1)), None)
    if not any(classes[group] for group in drawn):
        next((group for group in order if classes[group] and draw(group, 0)), None)
    for group in order:
        draw(group, 1)
    return {name for group in drawn for name in members[group]}


def _connected(links: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The name of each one's group: the first of all that links in common lead to."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        path = []
        while leader.setdefault(key, key) != key:
            path.append(key)
            key = leader[key]
        leader.update(dict.fromkeys(path, key))  # or the next way would be as long
        return key

    for name in sorted(links, reverse=True):
        for link in links[name]:  # the smaller name leads, and those of links none
            leader[find(link)] = leader[find(name)] = name
    return {name: find(name) for name in links}


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
