"""Ways to damage bytes, texts and trees."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**70), 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "x", "nan", "1", "1e999", "\0", "é\udc80", "../../etc/passwd", "/", ".", "a" * 5000),
    *([], {}, [[]], [None], [1, 2, 3, 4], {"a": 1}, {"id": 1}),
)
"""Values that a field may hold in the file of a stranger."""


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero_block(data: bytes, rng: random.Random) -> bytes:
    """As a sector that was not written."""
    size = rng.choice((1, 8, 512, 4096))
    begin = rng.randrange(max(1, len(data) - size))
    return data[:begin] + bytes(len(data[begin : begin + size])) + data[begin + size :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """As a download that was cut off."""
    return data[: rng.choice((rng.randrange(len(data)), max(0, len(data) - rng.randrange(1, 30))))]


def leave_out(data: bytes, rng: random.Random) -> bytes:
    """A part in the middle."""
    begin = rng.randrange(len(data))
    return data[:begin] + data[begin + rng.choice((1, 2, 16, 512)) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Bytes that do not belong there."""
    begin = rng.randrange(len(data) + 1)
    return data[:begin] + rng.randbytes(rng.choice((1, 4, 100))) + data[begin:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A part of it twice."""
    begin = rng.randrange(len(data))
    part = data[begin : begin + rng.choice((8, 64, 2048))]
    return data[:begin] + part + data[begin:]


def swap_blocks(data: bytes, rng: random.Random) -> bytes:
    """Two parts of one size."""
    size = min(rng.choice((4, 64, 512)), len(data) // 2)
    if not size:
        return b""
    a = rng.randrange(len(data) - 2 * size + 1)
    b = rng.randrange(a + size, len(data) - size + 1)
    return (
        data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]
    )


def extreme_number(data: bytes, rng: random.Random) -> bytes:
    """A number of one to eight bytes, which may be a length."""
    form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    value = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1))
    begin = rng.randrange(max(1, len(data) - size))
    return data[:begin] + struct.pack(form, value) + data[begin + size :]


def append(data: bytes, rng: random.Random) -> bytes:
    """Something behind the end."""
    return data + rng.choice((b"\0" * 100, data, rng.randbytes(50), b"\n"))


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, zero_block, truncate, leave_out, insert, repeat, swap_blocks),
    *(extreme_number, append),
)


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, the bytes after it)."""
    if rng.random() < 0.02:
        return "replace all", rng.choice((b"", bytes(len(data)), rng.randbytes(len(data)), b"\n"))
    change = rng.choice(BYTES)
    return change.__name__.replace("_", " "), change(data, rng)


def paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value in dicts and lists."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from paths(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, (*path, index))


def damaged_tree(tree: Any, rng: random.Random) -> tuple[str, Any]:
    """A value of dicts and lists replaced, taken out, doubled or renamed."""
    changed = copy.deepcopy(tree)
    *parents, last = path = rng.choice([*paths(tree)])
    parent = changed
    for key in parents:
        parent = parent[key]
    what = rng.choice(("replace", "replace", "replace", "remove", "double", "rename", "wrap"))
    if what == "replace":
        parent[last] = copy.deepcopy(rng.choice(JUNK))
    elif what == "remove":
        del parent[last]
    elif what == "wrap":
        parent[last] = rng.choice((lambda v: [v], lambda v: {"a": v}, str))(parent[last])
    elif isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[last]))
        what = "double"
    else:
        parent[rng.choice(("x", "", f"{last} ", str(last).upper()))] = parent.pop(last)
        what = "rename"
    names = ".".join(str(key) for key in path if isinstance(key, str))
    return f"{what} {names}", changed


def damaged_text(text: str, rng: random.Random) -> tuple[str, str]:
    """One word of a text replaced, or a line taken out, doubled or joined with the next."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    what = rng.choice(("word", "word", "word", "remove line", "double line", "join lines"))
    if what == "word":
        words = lines[at].split(" ")
        words[rng.randrange(len(words))] = str(rng.choice(JUNK[:31]))[:400]
        lines[at] = " ".join(words)
    elif what == "remove line":
        del lines[at]
    elif what == "double line":
        lines.insert(at, lines[at])
    else:
        lines[at : at + 2] = [" ".join(lines[at : at + 2])]
    return what, "\n".join(lines)
