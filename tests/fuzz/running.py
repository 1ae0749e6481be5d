"""Runs cases in a process that may hang, die or be short of memory, and judges how they end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dense_kd.errors import DenseKDError

from .outcomes import OUTCOMES, REFUSED, Case, Kind, Result, Violation

SECONDS = 20
"""Of computing that a case may take."""
WAITING = 6 * SECONDS
"""Seconds that it may take by the clock: it may wait for other processes, but for no pipe."""
MEMORY = 1 << 30
"""Bytes that a case may take above what the process has."""
MARK = "executed"
"""What code in a file would make, in the folder of its case."""

_GRACE = 15
_GROWTH = MEMORY // 2


class _TooLong(BaseException):
    """Raised by the alarm; no handler of errors may take it for one."""


def kinds_of_cases(kinds: Mapping[str, Kind], count: int) -> list[str]:
    """The kind of each case, in turn and by their shares."""
    turn = [name for name, kind in kinds.items() for _ in range(kind.share)]
    random.Random(0).shuffle(turn)
    return [turn[index % len(turn)] for index in range(count)]


def run_cases(
    kinds: Mapping[str, Kind],
    seed: int,
    indices: Sequence[int],
    folder: Path,
    keep: Path,
    *,
    trace: bool = False,
) -> Iterator[Result]:
    """The results of the cases of a seed.

    Args:
        kinds: by their names.
        seed: of all; a case depends on it and on its index.
        indices: of the cases.
        folder: for what they share, and for the files of each, which are removed after it.
        keep: where the files of violations are left.
        trace: print tracebacks of errors that no case may end in.
    """
    names = kinds_of_cases(kinds, max(indices, default=0) + 1)
    left = [*indices]
    context = multiprocessing.get_context("fork")
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(theirs, kinds, names, seed, [*left], folder, keep, trace)
        )
        process.start()
        theirs.close()
        try:
            yield from _received(ours, left, names)
        finally:
            process.kill()
            process.join()
        ours.close()


def _received(ours: Connection, left: list[int], names: Sequence[str]) -> Iterator[Result]:
    """Results as they come, until the process is done or has to be replaced."""
    while left:
        begin = time.monotonic()
        wrong = f"takes more than {WAITING} s, and cannot be stopped"
        if ours.poll(WAITING + _GRACE):
            try:
                result = ours.recv()
            except EOFError:
                wrong = "ends the process"
            else:
                assert result.index == left.pop(0)
                yield result
                continue
        index = left.pop(0)
        yield Result(index, names[index], "?", wrong, True, time.monotonic() - begin)
        return


def _work(
    pipe: Connection,
    kinds: Mapping[str, Kind],
    names: Sequence[str],
    seed: int,
    indices: Sequence[int],
    folder: Path,
    keep: Path,
    trace: bool,
) -> None:
    for name in ("dense_kd", "detectron2", "d2", "fvcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(dir=folder))
    shared = _prepared([kinds[name] for name in dict.fromkeys(names)], folder)
    limit = _virtual_memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _stop)
    for index in indices:
        case, name = _made(folder / "cases" / str(index)), names[index]
        os.chdir(case)
        result = _judged(kinds[name], name, shared[kinds[name].prepare], seed, index, case, trace)
        os.chdir(folder)
        if result.violated:
            target = keep / f"seed{seed}_case{index}_{name.replace(' ', '_')}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(case, target, symlinks=True, ignore=_pipes)
        shutil.rmtree(case, ignore_errors=True)
        pipe.send(result)


def _prepared(kinds: Sequence[Kind], folder: Path) -> dict[Callable[[Path], Any], Any]:
    """What cases share, by what makes it: kinds may have it together."""
    made: dict[Callable[[Path], Any], Any] = {}
    for kind in kinds:
        if kind.prepare not in made:
            made[kind.prepare] = kind.prepare(_made(folder / f"shared{len(made)}"))
    return made


def _judged(
    kind: Kind, name: str, shared: Any, seed: int, index: int, folder: Path, trace: bool
) -> Result:
    before, begin = _peak(), time.process_time()
    wrong = outcome = ""
    case = Case(random.Random(f"{seed}/{index}"), folder)
    signal.alarm(WAITING)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        outcome = kind.run(shared, case)
        assert outcome in OUTCOMES, outcome
    except DenseKDError as error:
        outcome, wrong = REFUSED, _ill_refused(error, case)
    except Violation as error:
        wrong = str(error)
    except _TooLong:
        wrong = f"takes more than {SECONDS} s, or waits for {WAITING} s"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
        if trace:
            traceback.print_exc()
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    if (folder / MARK).exists():
        wrong = "runs code of the file"
    if _peak() - before > _GROWTH and not wrong:
        wrong = f"takes {(_peak() - before) >> 20} MB"
    seconds = time.process_time() - begin
    return Result(index, name, case.mutation, wrong or outcome, bool(wrong), seconds)


def _ill_refused(error: DenseKDError, case: Case) -> str:
    """What is wrong with an error; "" if nothing is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return f"needs more than {MEMORY >> 20} MB: {error}"
        cause = cause.__cause__ or cause.__context__
    names = case.names or (str(case.folder), *(path.name for path in case.folder.rglob("*")))
    if not any(name in str(error) for name in names):
        return f"names no file: {type(error).__name__}: {error}"
    return ""


def _pipes(folder: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def _stop(*_: object) -> None:
    raise _TooLong


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
