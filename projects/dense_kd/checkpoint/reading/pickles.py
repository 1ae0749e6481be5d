"""Read pickles of weights without unpickling them.

``pickle`` calls what a file names, and ``torch.load(weights_only=True)`` has had holes (such as
CVE-2025-32434 before torch 2.6). This interpreter of the opcodes calls nothing but what
:mod:`.pickled_objects` lists, whatever the version of torch, and its cost is bounded by the size of
the file.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, cast

import numpy as np

from .pickled_objects import Budget, Call, DType, Ignored, fill_array, known_object
from .pickled_values import check_key, check_tree, plain

MAX_OPCODES = 5_000_000
MAX_LINE = 4096
"""Bytes of a number or name in the text opcodes of protocol 0; int() of a long one is slow."""

_TEXTS = (b"S", b"V")
"""STRING and UNICODE of protocol 0, a line of any length; an array's numbers are one."""

_ARGUMENTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
"""Opcodes that push their argument."""

_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


def read_pickle(
    file: BinaryIO, size: int, budget: Budget, storage: Callable[[Any], Any] | None = None
) -> Any:
    """The next pickle of ``file``: containers, plain values, tensors and arrays.

    Args:
        file: is left behind the pickle.
        size: of the file.
        budget: of what the pickle may make of its bytes.
        storage: gives what a persistent id stands for; None if there may be none.

    Raises:
        ForbiddenError: it names something that is neither a container nor weights.
        pickle.UnpicklingError: it is damaged, or made to cost time or memory.
    """
    value = _Interpreter(budget, storage).run(_Bounded(file, size))
    check_tree(value, Ignored)
    return value


class _Bounded:
    """A file of which never more is read than there is."""

    def __init__(self, file: BinaryIO, size: int):
        self.file = file
        self.size = size
        self.tell = file.tell
        self.last_read = b""

    def read(self, count: int) -> bytes:
        if count > MAX_LINE:
            count = min(count, self.size - self.tell())
        self.last_read = self.file.read(count)
        return self.last_read

    def readline(self) -> bytes:
        if self.last_read in _TEXTS:
            return self.file.readline()
        line = self.file.readline(MAX_LINE)
        if len(line) == MAX_LINE:
            raise pickle.UnpicklingError(f"a line of more than {MAX_LINE} bytes")
        return line


def _opcodes(file: _Bounded) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    return pickletools.genops(cast("IO[bytes]", file))  # it reads, and asks where it is


class _Interpreter:
    """The stack machine of pickle, over values that cannot run code."""

    def __init__(self, budget: Budget, storage: Callable[[Any], Any] | None):
        self.budget = budget
        self.storage = storage
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        for count, (opcode, argument, _) in enumerate(_opcodes(file)):
            name = opcode.name
            if count == MAX_OPCODES:
                raise pickle.UnpicklingError(f"more than {MAX_OPCODES:,} opcodes")
            if name in _ARGUMENTS:
                self.stack.append(plain(argument))
            elif name in _NEW:
                self.budget.spend_on_items(1)
                self.stack.append(_NEW[name]())
            elif name in _TUPLES:
                self._push_tuple(_TUPLES[name])
            elif name == "STOP":
                return self.stack.pop()
            elif name not in _IGNORED:
                action = getattr(self, f"_{name.lower()}", None)
                if action is None:
                    raise pickle.UnpicklingError(f"the opcode {name}, which no weights need")
                action(argument)
        raise pickle.UnpicklingError("no end")

    def _push_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise pickle.UnpicklingError("a tuple of values that are not there")
        self.budget.spend_on_items(1)
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _mark(self, _: None) -> None:
        self.budget.spend_on_items(1)
        self.marked.append(self.stack)
        self.stack = []

    def _items(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._items()

    def _pop_mark(self, _: None) -> None:
        self._items()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _list(self, _: None) -> None:
        items = self._items()
        self.stack.append(items)

    def _tuple(self, _: None) -> None:
        items = self._items()
        self.stack.append(tuple(items))

    def _frozenset(self, _: None) -> None:
        items = self._items()
        self.stack.append(frozenset(map(check_key, items)))

    def _dict(self, _: None) -> None:
        items = self._items()
        self.stack.append({})
        self._set(items)

    def _append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self, _: None) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _additems(self, _: None) -> None:
        items = self._items()
        self._top(set).update(map(check_key, items))

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: None) -> None:
        self._set(self._items())

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict, OrderedDict, Counter)
        if len(items) % 2:
            raise pickle.UnpicklingError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            target[check_key(key)] = value

    def _top(self, *kinds: type) -> Any:
        """The value on top of the stack, which must be of one of ``kinds``."""
        if type(self.stack[-1]) not in kinds:
            raise pickle.UnpicklingError(f"items of a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(known_object(module, name))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise pickle.UnpicklingError("a class whose name is no text")
        self.stack.append(known_object(module, name))

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not isinstance(function, (Call, Ignored)):
            raise pickle.UnpicklingError(f"a call of a {type(function).__name__}")
        self.stack.append(function(self.budget, *arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            fill_array(target, state, self.budget)
        elif isinstance(target, DType):
            target.order = state[1]
        elif type(target) is OrderedDict:
            if not isinstance(state, dict):
                raise pickle.UnpicklingError(f"a {type(state).__name__} as attributes of a dict")
            if "_metadata" in state:  # of the state dict of a module
                target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        elif not isinstance(target, Ignored):
            raise pickle.UnpicklingError(f"attributes of a {type(target).__name__}")

    def _binpersid(self, _: None) -> None:
        if self.storage is None:
            raise pickle.UnpicklingError("a reference to what is not in the file")
        self.stack.append(self.storage(self.stack.pop()))
