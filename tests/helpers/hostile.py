"""Files that would run code, or cost time or memory, if they were unpickled."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

PROTOCOLS = range(6)


class RunsOnce:
    """Unpickles to a call that makes the file ``mark``."""

    def __init__(self, mark: str):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.mark,)


class HasState:
    """Unpickles to an object whose ``__setstate__`` is called."""

    def __init__(self, mark: str):
        self.mark = mark

    def __setstate__(self, state: dict) -> None:
        os.mkdir(state["mark"])


def text(value: str) -> bytes:
    """The opcode that pushes a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def code_pickles(mark: str) -> dict[str, bytes]:
    """{what: a pickle that makes the folder ``mark``}, by each way that pickles have to do it."""
    argument = text(mark)
    stored = {
        "INST": b"(" + argument + b"ios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\n" + argument + b"o.",
        "REDUCE": b"cos\nmkdir\n" + argument + b"\x85R.",
        "posix": b"cposix\nmkdir\n" + argument + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + argument + b"\x85R.",
        "a name with dots": (
            b"\x80\x04" + text("os") + text("path.os.mkdir") + b"\x93" + argument + b"\x85R."
        ),
        "through a torch module": (
            b"ctorch.serialization\nos.mkdir\n" + argument + b"\x85R."
        ),
        "an attribute of a known class": (
            b"cbuiltins\ngetattr\ncos\n__dict__\n" + text("mkdir") + b"\x86R" + argument + b"\x85R."
        ),
        "getattr of an array": (
            b"c__builtin__\ngetattr\ncnumpy\nndarray\n" + text("tofile") + b"\x86R."
        ),
        "eval": b"c__builtin__\neval\n" + text(f"__import__('os').mkdir({mark!r})") + b"\x85R.",
        "NEWOBJ": b"cos\nmkdir\n" + argument + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nmkdir\n" + argument + b"\x85}\x92.",
        "EXT1": b"\x82\x01" + argument + b"\x85R.",
        "EXT4": b"\x84\x01\x00\x00\x00" + argument + b"\x85R.",
        "PERSID": b"P/etc/passwd\n.",
        "BINPERSID": text("storage") + b"Q.",
        "a call of text": text("os.mkdir") + argument + b"\x85R.",
        "attributes of a function": b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__")
        + argument + b"sb.",
        "slots of a function": b"ccollections\nOrderedDict\nN}" + text("__init__") + argument
        + b"s\x86b.",
        "NEXT_BUFFER": b"\x80\x05\x97\x98.",
        "a hook of a tensor": b"ctorch._utils\n_rebuild_tensor_v2\ncos\nmkdir\n" + argument
        + b"\x86R.",
    }  # fmt: skip
    for protocol in PROTOCOLS:
        for kind in (RunsOnce, HasState):
            stored[f"{kind.__name__}, protocol {protocol}"] = pickle.dumps(kind(mark), protocol)
    return stored


def archive(pickled: bytes, compression: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    """A file like torch.save's with ``pickled`` in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as target:
        of_data = {f"data/{name}": data for name, data in files.items()}
        for name, data in {"data.pkl": pickled, "version": b"3\n", **of_data}.items():
            # Of a fixed date: bytes of it stand in names of tests, which all workers have to share.
            target.writestr(zipfile.ZipInfo(f"archive/{name}"), data, compress_type=compression)
    return content.getvalue()


def legacy(pickled: bytes) -> bytes:
    """A file like that of torch before 1.6, with ``pickled`` in it."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(part, 2) for part in parts) + pickled + pickle.dumps([], 2)


WRAPPINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a .pkl": (".pkl", bytes),
    "a pickle named .pth": (".pth", bytes),
    "an archive": (".pth", archive),
    "an archive named .pkl": (".pkl", archive),
    "a file of old torch": (".pth", legacy),
    "a .pyth": (".pyth", archive),
}
"""{what: (suffix, the file of a pickle)}"""


def nested_key(depth: int) -> bytes:
    """{t: 1}, where t is (s, s), s is (r, r), ...: to hash it takes 2 ** depth steps."""
    return b"\x80\x02})" + b"q\x01h\x01\x86" * depth + b"K\x01s."


def shared(depth: int, pair: bytes) -> bytes:
    """A pair of one pair of one pair of ...: to walk through it takes 2 ** depth steps."""
    return b"\x80\x02]" + (b"q\x01" + pair) * depth + b"."


def colliding_keys(count: int) -> bytes:
    """A dict of integers with one hash: to fill it takes count ** 2 steps."""
    keys = (pickle.dumps(i * (2**61 - 1), 2)[2:-1] for i in range(1, count))
    return b"\x80\x02}(" + b"".join(key + b"N" for key in keys) + b"u."


class _HugeArray:
    def __reduce__(self) -> tuple:
        import numpy as np

        rebuild = np.empty(0).__reduce__()[0]
        return rebuild, (np.ndarray, (10**11,), b"d")


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def storage(count: int, kind: str = "FloatStorage") -> bytes:
    """The opcodes that push storage "0"."""
    number = pickle.dumps(count, 2)[2:-1]
    reference = text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number
    return b"(" + reference + b"tQ"


def tensor(count: int, size: int, stride: int, offset: int = 0) -> bytes:
    """The opcodes that push a vector of ``size`` in a storage of ``count`` floats."""
    offset, size, stride = (pickle.dumps(x, 2)[2:-1] for x in (offset, (size,), (stride,)))
    return TENSOR + b"(" + storage(count) + offset + size + stride + b"\x89}tR"


BOMBS: dict[str, Callable[[], bytes]] = {
    "nested tuples as a key": lambda: nested_key(60),
    "lists that share lists": lambda: shared(60, b"]q\x02h\x01ah\x02h\x01a"),
    "tuples that share tuples": lambda: shared(60, b"h\x01\x86"),
    "a list that contains itself": lambda: b"\x80\x02]q\x00h\x00a.",
    "a dict that contains itself": lambda: b"\x80\x02}q\x00K\x01h\x00s.",
    "deep nesting": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": lambda: b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "keys of one hash": lambda: colliding_keys(30_000),
    "an array of 10^11 numbers": lambda: pickle.dumps({"a": _HugeArray()}, 2),
    "a number of a million digits": lambda: b"L" + b"9" * 1_000_000 + b"L\n.",
    "a number of a million bytes": lambda: (
        b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b"."
    ),
    "a text longer than the file": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.",
    "bytes longer than the file": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a.",
    "a megabyte a thousand times": lambda: (
        b"\x80\x02c_codecs\nencode\nq\x01" + text("a" * (1 << 20))
        + b"q\x02](" + (b"h\x01h\x02" + text("latin1") + b"\x86R") * 1000 + b"e."
    ),
    "many sets": lambda: b"\x80\x04](" + b"\x8f" * 4_000_000 + b"e.",
    "a tensor that repeats a number": lambda: archive(
        b"\x80\x02}" + text("a") + tensor(1, 10**11, 0) + b"s.", **{"0": b"\0" * 4}
    ),
    "a storage that is not there": lambda: legacy(
        b"\x80\x02}" + text("a") + tensor(10**11, 10**11, 1) + b"s."
    ),
    "a compressed archive": lambda: archive(
        b"\x80\x02N.", zipfile.ZIP_DEFLATED, **{"0": bytes(10**8)}
    ),
}  # fmt: skip
"""{what: makes a small file that takes unbounded time or memory}"""


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def whole_checkpoint() -> dict:
    """One that may be read, of all kinds of values that ours and others' hold."""
    from collections import Counter, OrderedDict

    import numpy as np

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    state = OrderedDict(
        weight=base,
        transposed=base.t(),
        part=base[2:4, ::2],
        scalar=torch.tensor(3),
        empty=torch.empty(0, 4),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )
    for dtype in ("float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "bool"):
        state[dtype] = torch.arange(3).to(getattr(torch, dtype))
    state._metadata = OrderedDict({"": {"version": 2}})
    return {
        "model": state,
        "iteration": 7,
        "optimizer": {"state": {0: {"step": 1.0}}, "param_groups": [{"params": [0], "lr": 0.1}]},
        "shape": base.shape,
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "milestones": Counter([60000, 80000]),
        "members": {1, 2},
        "frozen": frozenset({"a"}),
        "score": np.float64(0.5),
        "array": np.arange(6, dtype=np.int64).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": "é",
        "raw": b"\x00\xff",
        "nothing": None,
        "big": 2**70,
        "negative": -5,
        "complex": 1.5,
    }
