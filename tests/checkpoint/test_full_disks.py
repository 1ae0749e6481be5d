"""What cannot be written: one line says so, earlier files stay, and nothing is left over."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from torch import nn

from dense_kd.checkpoint import AtomicCheckpointer, SaveError, replace_atomically, saving
from helpers.full_disks import fails, files_of_at_most


def saved(folder, name: str = "model_0000001") -> AtomicCheckpointer:
    checkpointer = AtomicCheckpointer(nn.Linear(100, 100), str(folder))  # 40 kB
    checkpointer.save(name)
    return checkpointer


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (lambda: files_of_at_most(20_000), "File too large"),
        (lambda: fails("fsync"), "No space left on device"),
        (lambda: fails("fsync", errno.EDQUOT), "make space in your quota"),
        (lambda: fails("replace", errno.EROFS), "get the permission to write there"),
        (lambda: fails("replace", after=1), "last_checkpoint"),  # which is written after the file
    ],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(tmp_path, failure, said):
    checkpointer = saved(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(SaveError, match=said) as error, failure():
        checkpointer.save("model_0000002")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    after = contents(tmp_path)
    assert before.items() <= after.items()
    assert set(after) - set(before) <= {"model_0000002.pth"}
    checkpointer.save("model_0000002")  # there is space now
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"


def test_the_bytes_that_are_needed_and_free_are_named(tmp_path):
    checkpointer = saved(tmp_path)
    needed = (tmp_path / "model_0000001.pth").stat().st_size
    with pytest.raises(SaveError) as error, files_of_at_most(1000):
        checkpointer.save("model_0000001")
    assert f"({needed:,} bytes are needed, " in str(error.value)
    assert f" are free in {tmp_path})" in str(error.value)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("a file")])
def test_a_folder_that_has_vanished_is_named(tmp_path, make):
    folder = tmp_path / "run"
    folder.mkdir()
    checkpointer = saved(folder)
    shutil.rmtree(folder)
    make(folder)
    with pytest.raises(SaveError, match="make the folder again") as error:
        checkpointer.save("model_0000002")
    assert str(folder / "model_0000002.pth") in str(error.value)


def test_what_the_writer_itself_raises_is_left_as_it_is(tmp_path):
    def write(file) -> None:
        file.write(b"half")
        raise KeyError("of the content")

    with pytest.raises(KeyError, match="of the content"):
        replace_atomically(str(tmp_path / "file"), write)
    assert os.listdir(tmp_path) == []


def test_writers_may_seek_as_in_a_file(tmp_path):
    def write(file) -> None:
        file.write(b"0123456789")
        file.seek(2)
        file.write(b"ab")
        file.seek(0, os.SEEK_END)
        assert file.tell() == 10
        file.write(b"!")

    replace_atomically(str(tmp_path / "file"), write)
    assert (tmp_path / "file").read_bytes() == b"01ab456789!"


def test_what_others_write_becomes_an_error_that_names_the_file(tmp_path):
    with pytest.raises(SaveError, match=r"metrics\.json cannot be written: No space left"):
        with saving(tmp_path / "metrics.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
