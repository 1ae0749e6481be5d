"""Files of a teacher's cache: what was written is read, and nothing else."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from dense_kd.teacher_cache import TeacherCache
from dense_kd.teacher_cache.entry import pack
from dense_kd.teacher_cache.stores import FolderStore, MemoryStore

KEY = "ab12-features"


def entry(half: bool = False, value: float = 1.5):
    generator = torch.Generator().manual_seed(0)
    levels = {
        "features": [torch.randn(3, side, side, generator=generator) for side in (3, 2, 1)],
        "quality": [torch.full((1, 1, 1), value).bfloat16()],
    }
    return pack(levels, half)


def numbers(of) -> list[torch.Tensor]:
    return [*of.tensors()]


@pytest.mark.parametrize("half", [False, True])
def test_an_entry_is_read_by_another_process_as_it_was_written(tmp_path, half):
    written = entry(half)
    FolderStore(str(tmp_path / "a" / "b")).put(KEY, written)
    store = FolderStore(str(tmp_path / "a" / "b"))
    read = store.get(KEY)
    assert read.maps == written.maps and torch.equal(read.content, written.content)
    assert [x.dtype for x in numbers(read)] == [torch.float16 if half else torch.float32] * 3 + [
        torch.bfloat16
    ]
    assert store.count == 1 and store.nbytes == os.path.getsize(store._path(KEY))
    assert store.get("ab13-features") is None


@pytest.mark.parametrize("kind", [FolderStore, MemoryStore])
def test_what_is_put_takes_the_place_of_what_was_there(tmp_path, kind):
    store, other = (kind(str(tmp_path / name)) if kind is FolderStore else kind() for name in "ab")
    store.put(KEY, entry(half=True))
    assert not store.get(KEY).is_exact
    for each in (store, other):
        each.put(KEY, entry())
    assert store.get(KEY).is_exact and torch.equal(store.get(KEY).content, entry().content)
    assert (store.count, store.nbytes) == (1, other.nbytes)


def damage(path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[:-5]
    elif how == "empty":
        content = bytearray()
    elif how == "a bit of the maps":
        content[-20] ^= 1
    elif how == "a bit of the header":
        content[content.index(b"float32")] ^= 1
    elif how == "longer":
        content += b"\0"
    else:
        content = bytearray(b"something else\n" * 10)
    path.write_bytes(content)


HOWS = ["truncated", "empty", "a bit of the maps", "a bit of the header", "longer", "foreign"]


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_or_foreign_file_is_said_and_written_anew(tmp_path, caplog, how):
    store = FolderStore(str(tmp_path))
    store.put(KEY, entry())
    damage(store._path(KEY), how)
    assert store.get(KEY) is None
    assert f"{KEY}.maps in the cache of the teacher cannot be used" in caplog.text
    store.put(KEY, entry())
    assert torch.equal(store.get(KEY).content, entry().content)
    assert store.count == 1 and store.nbytes == os.path.getsize(store._path(KEY))


def test_a_file_under_another_name_is_not_taken_for_it(tmp_path, caplog):
    store = FolderStore(str(tmp_path))
    store.put(KEY, entry())
    store._path(KEY).rename(store._path("ab99-features"))
    assert store.get("ab99-features") is None
    assert f"it is the entry {KEY}" in caplog.text


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    store = FolderStore(str(tmp_path))
    store.put(KEY, entry())
    left = store._path(KEY).with_name(f"{KEY}.maps.tmp999999999")
    left.write_bytes(b"half")
    FolderStore(str(tmp_path))
    assert not left.exists() and store._path(KEY).exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_folder_that_can_only_be_read_is_read_whatever_a_killed_process_has_left(
    tmp_path, monkeypatch, code
):
    store = FolderStore(str(tmp_path))
    store.put(KEY, entry())
    left = store._path(KEY).with_name(f"{KEY}.maps.tmp999999999")
    left.write_bytes(b"half")

    def refuse(path, *_):
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "remove", refuse)
    assert FolderStore(str(tmp_path)).get(KEY) is not None and left.exists()


def test_entries_of_other_processes_count(tmp_path, monkeypatch):
    monkeypatch.setattr("dense_kd.teacher_cache.stores._WRITES_BETWEEN_LOOKS", 2)
    ours, others = FolderStore(str(tmp_path)), FolderStore(str(tmp_path))
    for number in range(4):
        others.put(f"cd{number}-features", entry())
    assert ours.nbytes == 0
    for number in range(2):
        ours.put(f"ef{number}-features", entry())
    assert ours.count == 6


def test_a_disk_that_is_full_ends_the_keeping_and_not_the_run(tmp_path, caplog, monkeypatch):
    cache = TeacherCache(str(tmp_path), max_bytes=1e9)

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.store, "put", no_space)
    for key in ("aa", "bb"):
        found = cache.maps(
            [key],
            ["features"],
            lambda missing: {"features": {"features": [torch.ones(1, 2, 3, 3)]}},
            torch.device("cpu"),
        )
        assert torch.equal(found["features"]["features"][0], torch.ones(1, 2, 3, 3))
    assert caplog.text.count("cannot be written to ([Errno 28] No space left on device)") == 1


def test_numbers_too_large_for_float16_are_kept_as_they_are():
    kept = pack(
        {"features": [torch.tensor([[[1e5, 1.0]]])], "quality": [torch.ones(1, 1, 1)]}, True
    )
    assert [x.dtype for x in numbers(kept)] == [torch.float32, torch.float16]
    assert numbers(kept)[0].flatten().tolist() == [1e5, 1.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_kept(value):
    assert entry(value=value) is None
