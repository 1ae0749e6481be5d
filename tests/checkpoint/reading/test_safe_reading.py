"""Files are read without running code from them, whole, and at a cost that their size bounds."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from dense_kd import Teacher
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    convert_file,
    load_strictly,
    read_content,
    read_weights,
)
from helpers.builders import tiny_fcos
from helpers.hostile import (
    BOMBS,
    PROTOCOLS,
    WRAPPINGS,
    archive,
    code_pickles,
    legacy,
    tensor,
    text,
    whole_checkpoint,
    written,
)

WAYS_IN = {
    "read_content": read_content,
    "read_weights": read_weights,
    "a teacher": lambda path: Teacher(tiny_fcos(), path).load(),
    "strict loading": lambda path: load_strictly(nn.Linear(1, 1), path),
    "train.init_checkpoint": lambda path: AtomicCheckpointer(nn.Linear(1, 1)).load(path),
    "last_checkpoint": lambda path: resume_from(path),
    "convert_checkpoint.py": lambda path: convert_file(path, path + ".out"),
}


def resume_from(path: str) -> None:
    folder, name = os.path.split(path)
    with open(os.path.join(folder, "last_checkpoint"), "w") as file:
        file.write(name)
    AtomicCheckpointer(nn.Linear(1, 1), folder).resume_or_load("", resume=True)


@pytest.mark.parametrize("what", list(code_pickles("x")))
def test_no_opcode_of_any_protocol_runs_code(tmp_path, what):
    mark = str(tmp_path / "ran")
    pickled = code_pickles(mark)[what]
    for suffix, wrap in WRAPPINGS.values():
        with pytest.raises(CheckpointError):
            read_content(written(tmp_path, f"file{suffix}", wrap(pickled)))
    assert not os.path.exists(mark)


@pytest.mark.parametrize("way", list(WAYS_IN))
@pytest.mark.parametrize("wrapping", list(WRAPPINGS))
def test_no_way_in_runs_code(tmp_path, monkeypatch, way, wrapping):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    suffix, wrap = WRAPPINGS[wrapping]
    mark = str(tmp_path / "ran")
    for what in ("RunsOnce, protocol 2", "STACK_GLOBAL"):
        bomb = code_pickles(mark)[what][:-1]  # without the end
        pickled = b"\x80\x04}" + text("model") + b"}s" + text("b") + bomb + b"s."
        with pytest.raises(CheckpointError, match="mkdir is not allowed"):
            WAYS_IN[way](written(tmp_path, f"file{suffix}", wrap(pickled)))
    assert not os.path.exists(mark)


@pytest.mark.parametrize("what", list(BOMBS))
def test_a_small_file_costs_little_time_and_memory(tmp_path, what):
    resource = pytest.importorskip("resource")
    path = written(tmp_path, "bomb.pkl", BOMBS[what]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(CheckpointError, match="bomb.pkl"):
        read_content(path)
    assert time.process_time() - start < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20  # KiB


def assert_same(a, b, place: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b), place
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b), place
    elif isinstance(a, Mapping):
        assert type(a) is type(b) and list(a) == list(b), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
        assert getattr(a, "_metadata", None) == getattr(b, "_metadata", None)
    else:
        assert a == b, place


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p >= 2])
@pytest.mark.parametrize("zipped", [True, False])
def test_all_that_torch_saves_is_read_as_it_was(tmp_path, protocol, zipped):
    path = str(tmp_path / "file.pth")
    content = whole_checkpoint()
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    read = read_content(path)
    assert_same(content, read)
    weights = read["model"]
    assert weights["weight"].data_ptr() == weights["transposed"].data_ptr()
    weights["weight"].zero_()  # the memory is its own


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_any_protocol_are_read(tmp_path, protocol):
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 2)),
        "large": np.zeros(100_000),
    }
    path = written(tmp_path, "zoo.pkl", pickle.dumps({"model": arrays}, protocol))
    assert_same({"model": arrays}, read_content(path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_of_very_many_steps_is_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr("dense_kd.checkpoint.reading.pickles.MAX_OPCODES", 1000)
    path = written(tmp_path, "file.pkl", pickle.dumps(list(range(1000)), protocol))
    with pytest.raises(CheckpointError, match="more than 1,000 opcodes"):
        read_content(path)


def test_big_endian_numbers_become_weights(tmp_path):
    path = written(tmp_path, "a.pkl", pickle.dumps({"a": np.arange(3, dtype=">f4")}, 2))
    assert read_weights(path)["a"].tolist() == [0, 1, 2]


def test_arrays_of_python_2_are_read(tmp_path):
    """As in detectron2's model zoo: bytes are text there."""
    data = np.arange(3, dtype="<f4").tobytes()
    pickled = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff"
        b"\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + data + b"tbs."
    )
    assert read_weights(written(tmp_path, "zoo.pkl", pickled))["a"].tolist() == [0, 1, 2]


def saved(folder, **tensors: torch.Tensor) -> str:
    path = str(folder / "model.pth")
    torch.save({"model": tensors}, path)
    return path


def test_a_flipped_bit_of_any_tensor_is_found(tmp_path):
    path = saved(tmp_path, a=torch.randn(50), b=torch.randn(7))
    whole = open(path, "rb").read()
    with zipfile.ZipFile(path) as file:
        entries = [e for e in file.infolist() if "/data/" in e.filename]
    assert len(entries) == 2
    for entry in entries:
        start = entry.header_offset + 30 + len(entry.filename)
        for position in range(start + 64, start + 64 + entry.file_size, 11):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            with pytest.raises(CheckpointError, match="could not be read"):
                read_weights(written(tmp_path, "damaged.pth", bytes(damaged)))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_refused(tmp_path, zipped):
    path = str(tmp_path / "model.pth")
    torch.save(whole_checkpoint(), path, _use_new_zipfile_serialization=zipped)
    whole = open(path, "rb").read()
    for length in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        assert_refused_when_cut(tmp_path, whole, length)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("tensor", [torch.empty(0), torch.tensor(3.0)], ids=["empty", "scalar"])
def test_a_file_of_one_tensor_cut_anywhere_is_refused(tmp_path, tensor, zipped):
    path = str(tmp_path / "model.pth")
    torch.save({"model": {"a": tensor}}, path, _use_new_zipfile_serialization=zipped)
    whole = open(path, "rb").read()
    for length in range(0, len(whole), 7 if zipped else 1):
        assert_refused_when_cut(tmp_path, whole, length)


def assert_refused_when_cut(folder, whole: bytes, length: int) -> None:
    with pytest.raises(CheckpointError, match=rf"cut.pth \({length} bytes\) could not be read"):
        read_content(written(folder, "cut.pth", whole[:length]))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "empty"),
        (bytes(2000), "zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\n <html>", "web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web page"),
        (b"\x50\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (b'{"a": 1}', "JSON"),
        (b"\x1f\x8b\x08\x00rest", "compressed"),
        (b"a" * 257 + b"ustar  ", "tar archive"),
        (b"\x89HDF\r\n", "HDF5"),
        (archive(b"N.")[:20], "could not be read"),
        (b"hello world", "could not be read"),
    ],
)
def test_what_is_no_checkpoint_is_told(tmp_path, content, said):
    with pytest.raises(CheckpointError, match=rf"file.pth.*{said}"):
        read_content(written(tmp_path, "file.pth", content))


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, expected the file"):
        read_content(str(tmp_path))


@pytest.mark.parametrize(
    "size, stride, offset", [(3, 1, 0), (2, 2, 0), (1, 1, 2), (2, 1, 1), (1, 1, 2**40)]
)
def test_no_tensor_reaches_beyond_its_numbers(tmp_path, size, stride, offset):
    def file(**view: int) -> str:
        pickled = b"\x80\x02}" + text("a") + tensor(2, **view) + b"s."
        return written(tmp_path, "file.pth", archive(pickled, **{"0": bytes(8)}))

    assert read_weights(file(size=2, stride=1))["a"].tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="could not be read"):
        read_weights(file(size=size, stride=stride, offset=offset))


def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path):
    path = str(tmp_path / "file.pth")
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for pickled in (b"\x80\x02N.", b"\x80\x02K\x01."):
            file.writestr("archive/data.pkl", pickled)
    with pytest.raises(CheckpointError, match="one name"):
        read_content(path)


def test_a_program_of_torchscript_is_no_checkpoint(tmp_path):
    path = str(tmp_path / "program.pt")
    torch.jit.script(nn.Linear(1, 1)).save(path)
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_content(path)


def test_a_logger_of_another_library_is_left_out(tmp_path):
    """mmengine's runs save one, DETR's scripts their arguments; nothing of it is built."""
    pickled = (
        b"\x80\x02}" + text("state_dict") + b"}s" + text("hub")
        + b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}" + text("f")
        + b"c__builtin__\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n"
        + text("min") + b"\x86Rsbs."
    )  # fmt: skip
    for wrap in (archive, legacy):
        content = read_content(written(tmp_path, "epoch_12.pth", wrap(pickled)))
        assert content["state_dict"] == {}
        assert "HistoryBuffer" in repr(content["hub"])
