"""The cache: whose maps are there, which of them are kept, and how often one was found."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import compat
from .entry import Entry, pack
from .fingerprint import bytes_of
from .stores import FolderStore, MemoryStore, Store

logger = logging.getLogger(__name__)

IN_MEMORY = "memory"
"""In place of a folder."""

CACHE_PRECISIONS = ("exact", "float16")

CACHE_UNITS = ("image", "batch")
"""What comes again."""

Levels = Mapping[str, Sequence[Tensor]]
"""{name: L x (N, C, Hl, Wl)}"""

_FIRST_REPORT = 1000  # images; then after twice as many, and so on
_MANY = 16_000  # images of which one at least should have come again


class TeacherCache:
    """Maps of a teacher by image, or by batch, bounded in bytes.

    What is full stays as it is: in epochs that are larger than it, a cache that made room would
    drop each image just before it comes again.

    On a GPU, what is new is copied to the host behind the step that made it and kept when it has
    arrived; what is found goes there in one copy for each map. The host waits for neither.

    Attributes:
        scalar: what the share of images that were found is named in the trainer's storage.
    """

    def __init__(
        self, place: str, *, max_bytes: float, precision: str = "exact", by: str = "image"
    ):
        """
        Args:
            place: a folder, or :data:`IN_MEMORY`.
            max_bytes: of all entries; what does not fit is not kept.
            precision: of :data:`CACHE_PRECISIONS`; "float16" is of what has more bits than that.
                To "exact", what another run has kept in float16 is not there, and is replaced.
            by: of :data:`CACHE_UNITS`. A batch is found if all its images come again in the same
                order, and then as it was computed, in every bit.
        """
        self.place = place
        self.max_bytes = max_bytes
        self.precision = precision
        self.by = by
        self.scalar = "teacher_cache/hits"
        self.asked = 0
        self.found = 0
        self._store: Store | None = None
        self._arriving: list[_Arriving] = []
        self._is_full = False
        self._met_rounded = False
        self._next_report = _FIRST_REPORT

    def maps(
        self,
        keys: Sequence[str],
        parts: Sequence[str],
        run: Callable[[list[int]], Mapping[str, Levels]],
        device: torch.device,
    ) -> dict[str, dict[str, list[Tensor]]]:
        """The maps of a batch: those that are there, and the others as ``run`` gives them.

        Args:
            keys: of the N images, see :func:`key_of`.
            parts: of the maps that are wanted; entries are kept part by part.
            run: {part: levels} of some images of the batch, by their indices.
            device: of the maps.

        Returns:
            {part: {name: L x (N, C, Hl, Wl)}} on ``device``.
        """
        self._keep_what_arrived()
        if self.by == "batch":
            return self._batch(keys, parts, run, device)
        entries = [self._entries(key, parts) for key in keys]
        missing = [index for index, entry in enumerate(entries) if entry is None]
        self._count(len(keys), len(keys) - len(missing))
        fresh: Mapping[str, Levels] = {}
        if missing:
            fresh = run(missing)
            self._send(fresh, [keys[index] for index in missing], device)
            if len(missing) == len(keys):
                return {part: _lists(fresh[part]) for part in parts}
        kept = [entry for entry in entries if entry is not None]
        result = {}
        for part in parts:
            old = _uploaded([entry[part] for entry in kept], device)
            result[part] = (
                old if not missing else _merged(old, _lists(fresh[part]), missing, len(keys))
            )
        return result

    def report(self) -> str:
        """Entries, bytes and hits, in words."""
        store = self.store
        share = f"{100 * self.found / self.asked:.1f} %" if self.asked else "none"
        return (
            f"The teacher's cache ({self.place}) had {self.found:,} of {self.asked:,} images "
            f"({share}); it holds {store.count:,} entries of {store.nbytes / 1e9:.3g} GB"
            + (f", and is full at {self.max_bytes / 1e9:g} GB" if self._is_full else "")
        )

    @property
    def store(self) -> Store:
        """Where the entries are; a folder is made when it is first asked for."""
        if self._store is None:
            in_memory = self.place == IN_MEMORY
            self._store = MemoryStore() if in_memory else FolderStore(self.place)
        return self._store

    def _batch(
        self,
        keys: Sequence[str],
        parts: Sequence[str],
        run: Callable[[list[int]], Mapping[str, Levels]],
        device: torch.device,
    ) -> dict[str, dict[str, list[Tensor]]]:
        key = hashlib.sha256("\0".join(keys).encode()).hexdigest()
        entries = self._entries(key, parts)
        self._count(len(keys), len(keys) if entries else 0)
        if entries is not None:
            return {part: _whole(entries[part], device) for part in parts}
        fresh = run([*range(len(keys))])
        self._send(fresh, [key], device)
        return {part: _lists(fresh[part]) for part in parts}

    def _entries(self, key: str, parts: Sequence[str]) -> dict[str, Entry] | None:
        found = {}
        for part in parts:
            entry = self.store.get(_key_of_part(key, part))
            if entry is None or not self._serves(entry):
                return None
            found[part] = entry
        return found

    def _serves(self, entry: Entry) -> bool:
        """Whether it is as precise as is asked for: a folder has what other runs have kept, too."""
        if self.precision != "exact" or entry.is_exact:
            return True
        if not self._met_rounded:
            self._met_rounded = True
            logger.warning(
                f"The teacher's cache ({self.place}) holds maps that another run has rounded to "
                "float16. This run has cache_precision=exact, so they are not used: the teacher is "
                "run on their images, and its maps take their place. Give "
                "cache_precision=float16 to use them, or another folder to keep both"
            )
        return False

    def _send(self, fresh: Mapping[str, Levels], keys: list[str], device: torch.device) -> None:
        """Keep maps under the keys of their images, or of the batch."""
        if self._is_full:
            return
        on_host, copied = {}, None
        for part, levels in fresh.items():
            on_host[part] = {
                name: [_to_host(level) for level in each] for name, each in levels.items()
            }
        if device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(device))
        self._arriving.append(_Arriving(keys, on_host, copied, self.by))
        self._keep_what_arrived()

    def _keep_what_arrived(self) -> None:
        """On a GPU, what was copied and not waited for."""
        arriving, self._arriving = self._arriving, []
        for each in arriving:
            if not each.is_there():
                self._arriving.append(each)
                continue
            for key, part, levels in each.entries():
                self._keep(_key_of_part(key, part), levels)

    def _keep(self, key: str, levels: Levels) -> None:
        if self._is_full:
            return
        entry = pack(levels, half=self.precision == "float16")
        if entry is None:  # not finite, which stops the run
            return
        if self.store.nbytes + entry.nbytes > self.max_bytes:
            self._stop_keeping(f"is full at {self.max_bytes / 1e9:g} GB")
            return
        try:
            self.store.put(key, entry)
        except OSError as error:
            self._stop_keeping(f"cannot be written to ({error})")

    def _stop_keeping(self, why: str) -> None:
        self._is_full = True
        self._arriving = []
        logger.warning(
            f"The teacher's cache ({self.place}) {why}: of other images nothing is kept, and the "
            "teacher is run on them in every epoch. cache_gb of the Teacher is its size"
        )

    def _count(self, asked: int, found: int) -> None:
        self.asked += asked
        self.found += found
        compat.put_scalar(self.scalar, found / asked)
        if self.asked < self._next_report:
            return
        self._next_report *= 2
        logger.info(self.report())
        if self.by == "image" and self.found == 0 and self._next_report == 2 * _MANY:
            logger.warning(
                f"The teacher's cache ({self.place}) had none of {self.asked:,} images. Unless an "
                "epoch is longer than that, no image comes again with the same pixels and the same "
                "padding: leave out augmentations other than flips, or leave out the cache"
            )

    def __reduce__(self) -> tuple[Any, ...]:  # a copy has kept nothing
        anew = functools.partial(
            type(self),
            self.place,
            max_bytes=self.max_bytes,
            precision=self.precision,
            by=self.by,
        )
        return anew, ()


def key_of(image: Tensor, context: str) -> str:
    """The key of an image in a batch.

    Args:
        image: (C, H, W), as it was loaded and augmented.
        context: all else that the maps depend on.
    """
    digest = hashlib.sha256(repr((context, tuple(image.shape), str(image.dtype))).encode())
    digest.update(bytes_of(image))
    return digest.hexdigest()


def _key_of_part(key: str, part: str) -> str:
    return f"{key}-{part}"


@dataclasses.dataclass
class _Arriving:
    """Maps on their way to the host.

    Attributes:
        keys: of the images, or of the batch.
        parts: {part: {name: L x (N, C, Hl, Wl)}}.
        copied: None if the copy is not from a GPU.
        by: what has a key.
    """

    keys: list[str]
    parts: dict[str, dict[str, list[Tensor]]]
    copied: torch.cuda.Event | None
    by: str

    def entries(self) -> Iterator[tuple[str, str, Levels]]:
        """(key, part, levels), of all images one by one, or of the batch as it is."""
        for index, key in enumerate(self.keys):
            for part, levels in self.parts.items():
                if self.by == "image":
                    levels = {name: [x[index] for x in level] for name, level in levels.items()}
                yield key, part, levels

    def is_there(self) -> bool:
        return self.copied is None or self.copied.query()


def _to_host(level: Tensor) -> Tensor:
    level = level.detach()
    if level.device.type != "cuda":
        return level
    host = torch.empty(level.shape, dtype=level.dtype, pin_memory=True)
    return host.copy_(level, non_blocking=True)


def _lists(levels: Levels) -> dict[str, list[Tensor]]:
    return {name: [*each] for name, each in levels.items()}


def _uploaded(entries: Sequence[Entry], device: torch.device) -> dict[str, list[Tensor]]:
    """{name: L x (N, C, Hl, Wl)}, in the dtypes of the teacher's pass; copies of the entries."""
    found: dict[str, list[Tensor]] = {}
    for each, *of_images in zip(entries[0].maps, *(entry.tensors() for entry in entries)):
        found.setdefault(each.name, []).append(_stacked(of_images, device).to(each.dtype))
    return found


def _whole(entry: Entry, device: torch.device) -> dict[str, list[Tensor]]:
    """{name: L x (N, C, Hl, Wl)} of a batch that is one entry, which was just read for it."""
    found: dict[str, list[Tensor]] = {}
    for each, maps in zip(entry.maps, entry.tensors()):
        if device.type == "cuda":
            maps = maps.pin_memory().to(device, non_blocking=True)
        found.setdefault(each.name, []).append(maps.to(each.dtype))
    return found


def _stacked(maps: list[Tensor], device: torch.device) -> Tensor:
    """(N, C, Hl, Wl) on ``device`` of N maps on the CPU."""
    if device.type != "cuda":
        return torch.stack(maps)
    # Those of one image may be kept in other dtypes than those of another.
    dtype = max((each.dtype for each in maps), key=lambda dtype: dtype.itemsize)
    host = torch.empty((len(maps), *maps[0].shape), dtype=dtype, pin_memory=True)
    for row, each in zip(host, maps):
        row.copy_(each)
    return host.to(device, non_blocking=True)


def _merged(
    old: dict[str, list[Tensor]], fresh: dict[str, list[Tensor]], missing: list[int], count: int
) -> dict[str, list[Tensor]]:
    """Maps of ``count`` images, of which ``missing`` are in ``fresh`` and the others in ``old``."""
    found: dict[str, list[Tensor]] = {}
    for name, levels in old.items():
        for ours, theirs in zip(levels, fresh[name]):
            known, new = iter(ours), iter(theirs)
            rows = [next(new if index in missing else known) for index in range(count)]
            found.setdefault(name, []).append(torch.stack(rows))
    return found
