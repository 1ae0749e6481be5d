"""The pretended GPU: it does the operations of torch on the CPU, and counts them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from . import rules
from .counts import PACKAGE, Counts
from .cuda import replaced_functions
from .frontend import Frontend
from .rules import Operation
from .tensor import Pretended, mapped, names_gpu, tensors_in

_CPU = torch.device("cpu")


class GPU(TorchDispatchMode):
    """One pretended GPU; :func:`pretended_gpu` makes it.

    Copies to the CPU that nothing waits for arrive when the host waits for the GPU the next time:
    what is read before that is NaN, or the smallest number.

    Attributes:
        counts: of all that it did.
        rng_state: of its random generator, which is not that of the CPU.
        saved: addresses of the data of pickled tensors.
    """

    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts
        self.rng_state = torch.Generator().manual_seed(0).get_state()
        self.saved: set[int] = set()
        self._under_way: list[tuple[Tensor, Tensor]] = []
        self.num_waits = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counts]:
        """What happens within, which those who count outside count, too."""
        with self.uncounted():
            counts = self.counts
            yield counts
        self.counts.include(counts)

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """What happens within is of no interest outside."""
        before, self.counts = self.counts, Counts(self.counts.root)
        try:
            yield
        finally:
            self.counts = before

    def stop(self, what: str) -> None:
        """The host waits for a result."""
        self.counts.add("stop", what)
        self.arrive()

    def upload(self, what: str) -> None:
        """The host waits until a copy to the GPU, and all before it, is done."""
        self.counts.add("upload", what)
        self.arrive()

    def arrive(self) -> None:
        """The GPU has done all that it was asked for."""
        self.num_waits += 1
        under_way, self._under_way = self._under_way, []
        for host, values in under_way:
            host.copy_(values)

    def hold(self, tensor: Tensor) -> Pretended:
        """``tensor`` of the CPU as one of the GPU."""
        return Pretended(tensor, self)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # importing the compiler takes longer than the tests

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.execute(func, args, kwargs or {})

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do an operation of torch.

        Raises:
            Refused: CUDA would not do it.
        """
        given = tensors_in(args, kwargs)
        device = kwargs.get("device")
        num_ours = sum(isinstance(x, Pretended) for x in given)
        from_gpu = num_ours > 0
        if not from_gpu and not names_gpu(device):
            return func(*args, **kwargs)
        operation = Operation.of(func)
        if operation.is_plain and num_ours == len(given):
            return self._compute(operation, func, args, kwargs, given)
        rules.check(operation, given, args, kwargs)
        if operation.name == "copy_":
            return self._copy(*args, **kwargs)
        if operation.name == "_to_copy" and device is not None and from_gpu != names_gpu(device):
            return self._move(func, args[0], kwargs)
        waited_for = rules.waits(operation, args, kwargs)
        if waited_for:
            self.stop(waited_for)
        for _ in range(rules.uploads(operation, args)):
            self.upload("index of the CPU")
        if operation.is_random and not kwargs.get("generator"):
            with self._random_numbers():
                return self._compute(operation, func, args, kwargs, given)
        return self._compute(operation, func, args, kwargs, given)

    def _compute(
        self,
        operation: Operation,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[Tensor],
    ) -> Any:
        held = [x.held if isinstance(x, Pretended) else mapped(x, _inner) for x in args]
        found = func(*held, **_on_cpu(kwargs))
        if operation.computes:
            outputs = tensors_in((found,), {})
            if not outputs or any(x.numel() > 0 for x in outputs):
                num_bytes = sum(x.nbytes for x in given) + sum(x.nbytes for x in outputs)
                self.counts.add("kernel", operation.name, num_bytes)
        if operation.changes_shape:
            with no_dispatch():
                func(*args, **kwargs)  # what torch knows about the shape
        if not operation.written:
            return Pretended(found, self) if isinstance(found, Tensor) else mapped(found, self.hold)
        # What was computed in place is the tensor that was given.
        known = {id(x.held): x for x in given if isinstance(x, Pretended)}
        return mapped(found, lambda x: known[id(x)] if id(x) in known else self.hold(x))

    def _copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        to_gpu, from_gpu = isinstance(target, Pretended), isinstance(source, Pretended)
        values = _inner(source)
        if to_gpu and from_gpu:
            num_bytes = 2 * target.numel() * target.element_size()
            if target.numel() > 0:
                self.counts.add("kernel", "copy_", num_bytes)
        elif to_gpu and not non_blocking:
            self.upload("copy_")
        elif from_gpu and not (non_blocking and is_pinned(target)):
            self.stop("copy_ to the CPU")
        elif from_gpu:
            self._send(target, values)
            return target
        _inner(target).copy_(values)
        return target

    def _move(self, func: Any, tensor: Tensor, kwargs: dict[str, Any]) -> Tensor:
        non_blocking = kwargs.get("non_blocking", False)
        # torch pins the memory that it copies to while nobody waits.
        found = func(_inner(tensor), **{**_on_cpu(kwargs), "non_blocking": False})
        if not isinstance(tensor, Pretended):
            if not non_blocking:
                self.upload("to")
            return self.hold(found)
        if not non_blocking:
            self.stop("to the CPU")
            return found
        self._send(found, found.clone())
        return found

    def _send(self, host: Tensor, values: Tensor) -> None:
        """``host`` gets the values of now when the host waits for the GPU the next time."""
        self._under_way.append((host, values.clone()))
        is_float = host.dtype.is_floating_point or host.dtype.is_complex
        host.fill_(float("nan") if is_float else 0 if host.dtype == torch.bool else _least(host))

    @contextlib.contextmanager
    def _random_numbers(self) -> Iterator[None]:
        of_cpu = torch.get_rng_state()
        torch.set_rng_state(self.rng_state)
        try:
            yield
            self.rng_state = torch.get_rng_state()
        finally:
            torch.set_rng_state(of_cpu)


@contextlib.contextmanager
def pretended_gpu(**options: Any) -> Iterator[GPU]:
    """A machine with one GPU, for what runs within.

    Args:
        options: ``root`` of :class:`Counts`; the package by default.
    """
    gpu = GPU(Counts(**{"root": PACKAGE, **options}))
    frontend = Frontend(gpu)
    with replaced_functions(gpu, frontend), gpu, frontend:
        yield gpu


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor of the CPU is in memory that the GPU can write to by itself."""
    return getattr(tensor, "is_in_pinned_memory", False)


def _inner(x: Any) -> Any:
    return x.held if isinstance(x, Pretended) else x


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    if not kwargs:
        return kwargs
    inner = {name: mapped(value, _inner) for name, value in kwargs.items() if name != "pin_memory"}
    return {**inner, "device": _CPU} if inner.get("device") is not None else inner


def _least(tensor: Tensor) -> int:
    return torch.iinfo(tensor.dtype).min
