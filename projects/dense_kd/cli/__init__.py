"""The command line, ``dense-kd``: one command is one file of this folder.

It parses, calls a function of the package and prints. What it imports at its top imports neither
torch nor detectron2, so that help is there at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from .. import __version__, allocation, noise
from ..errors import DenseKDError
from .arguments import with_home

__all__ = ["COMMANDS", "load_command", "main", "parse_args", "run_command"]

COMMANDS = (
    "train",
    "distill",
    "study",
    "check",
    "eval",
    "benchmark",
    "report",
    "errors",
    "diagnose",
    "maps",
    "replay",
    "predict",
    "label",
    "export",
    "convert",
    "list",
    "data",
)
"""In the order of the help; each is a file of this folder."""

_PROG = "dense-kd"
# What the system says of a disk or a folder that nothing can be written to, and of a path that is
# gone, or is no folder where one is needed.
_FULL_OR_CLOSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_OF_A_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ESTALE}
_MENDABLE = _FULL_OR_CLOSED | _OF_A_PATH


class Command(Protocol):
    """What the file of a command has.

    Attributes:
        HELP: what it does, in a line.
        EXAMPLES: command lines that work as printed; a comment may follow after ``#``.
    """

    HELP: str
    EXAMPLES: list[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments to an empty parser."""

    def run(self, args: argparse.Namespace) -> int | None:
        """Do what the arguments say; returns the exit code, None is 0."""


def load_command(name: str) -> Command:
    """The module of one of :data:`COMMANDS`."""
    return cast(Command, importlib.import_module(f".{name}", __name__))


def parse_args(
    name: str, argv: Sequence[str], prog: str | None = None
) -> tuple[Command, argparse.Namespace]:
    """A command, and its arguments. Options may stand before, between and after the others; ``~``
    at the start of a path is the home folder, however it is given.

    Args:
        name: one of :data:`COMMANDS`.
        argv: what follows the name on the command line.
        prog: how the command is called in its help, if not ``dense-kd <name>``.

    Raises:
        SystemExit: argparse's, for arguments that are none (2) and for ``--help`` (0).
    """
    command = load_command(name)
    usual = f"{_PROG} {name}"
    prog = prog or usual
    examples = "".join(f"  {e.replace(usual, prog, 1)}\n" for e in command.EXAMPLES)
    parser = argparse.ArgumentParser(
        prog=prog,
        description=command.HELP,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    argv = [with_home(word) for word in argv]
    try:
        return command, parser.parse_intermixed_args(argv)
    except TypeError:  # argparse's, of parsers with commands of their own
        return command, parser.parse_args(argv)


def run_command(name: str, argv: Sequence[str], prog: str | None = None) -> int:
    """Run a command and return its exit code; the arguments are those of :func:`parse_args`."""
    noise.silence()
    allocation.keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Names of files may be no Unicode: they get escapes, as on the other stream.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command, args = parse_args(name, argv, prog)
        return command.run(args) or 0
    except DenseKDError as error:
        print(f"{prog or _PROG}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog or _PROG}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads the output has seen enough, as in `dense-kd list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        print(f"{prog or _PROG}: {_of_system(error)}", file=sys.stderr)
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dense-kd`` and return its exit code.

    Args:
        argv: what follows the program's name; None: as it was started.

    Raises:
        SystemExit: as of :func:`parse_args`.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:])
    parser = argparse.ArgumentParser(
        prog=_PROG,
        usage=f"{_PROG} COMMAND ...",
        description="Knowledge distillation of dense object detectors.",
        epilog=f"{_PROG} COMMAND --help has the arguments of a command, and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    commands = parser.add_argument_group("commands")
    for name in COMMANDS:
        # Arguments, to have them in the help as argparse writes it; those that can be given are
        # dealt with above.
        commands.add_argument(name, nargs="?", help=load_command(name).HELP)
    if not argv:
        parser.print_help()
        return 0
    if not argv[0].startswith("-"):
        _refuse(parser, argv[0])
    parser.parse_args(argv[:1])
    _refuse(parser, argv[0])


def _of_system(error: OSError) -> str:
    """What it says, of which file if that is known, and what to do."""
    place = error.filename or "a file"
    todo = (
        "Make space there, get the permission, or give another folder"
        if error.errno in _FULL_OR_CLOSED
        else "See what is at that path, and whether its disk is still there, or give another one"
    )
    return f"{place}: {error.strerror}. {todo}"


def _refuse(parser: argparse.ArgumentParser, given: str) -> NoReturn:
    near = difflib.get_close_matches(given, COMMANDS, n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(COMMANDS)}"
    parser.error(f"there is no command {given!r}; {meant}")
