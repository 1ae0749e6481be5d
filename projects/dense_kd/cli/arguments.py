"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from ..errors import DenseKDError


def add_config(parser: argparse.ArgumentParser, metavar: str = "CONFIG path.key=value") -> None:
    """A config and its overrides, in any order, which :func:`take_names` tells apart.

    Args:
        parser: to add to.
        metavar: what may be given.
    """
    parser.add_argument(
        "opts",
        nargs="*",
        metavar=metavar,
        help="the config, a file or a name as `dense-kd list configs` has it, and overrides",
    )
    parser.add_argument(
        "--config-file", default="", metavar="CONFIG", help="the config, if not given by itself"
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """How many processes there are, and where they meet."""
    option = parser.add_argument
    option("--num-gpus", type=int, default=1, help="of each machine; processes without a GPU")
    option("--num-machines", type=int, default=1, help="number of machines")
    option("--machine-rank", type=int, default=0, help="of this machine, from 0")
    option(
        "--dist-url",
        default="auto",
        help="where the processes of several machines meet, tcp://HOST:PORT of the first; auto: a "
        "free port of this one",
    )


def take_names(args: argparse.Namespace, *names: str) -> None:
    """Move words of ``args.opts`` that are no overrides to attributes, in their order.

    Args:
        args: with ``opts``.
        names: of the attributes; one that is set already is left, one that no word is there for is
            not made. Further words stay, and are refused where overrides are read.
    """
    words = [word for word in args.opts if not is_override(word)]
    for name in names:
        if words and not getattr(args, name, None):
            setattr(args, name, words.pop(0))
            args.opts.remove(getattr(args, name))


def with_home(word: str) -> str:
    """A word of a command line whose path begins with ``~``, as a shell writes it out at the start
    of a word alone: also behind ``=``, as in ``--output=~/runs`` or ``train.output_dir=~/runs``."""
    name, separator, path = word.partition("=~")
    if not separator or word.startswith("~"):
        return os.path.expanduser(word)
    return f"{name}={os.path.expanduser(f'~{path}')}"


def is_override(word: str) -> bool:
    """Whether a word is no name: it has a ``=``, and there is no such file."""
    return "=" in word and not os.path.exists(word)


def titled(
    option: str, given: Sequence[str], form: str, refusal: type[DenseKDError]
) -> dict[str, str]:
    """{name: value} of an option that may be given several times.

    Args:
        option: its name.
        given: each NAME=VALUE.
        form: what is expected, for the error.
        refusal: raised for one of another form, or a name that was given before.
    """
    found: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not (name and separator and value) or name in found:
            what = form.partition("=")[0].lower()
            raise refusal(f"{option} {each}: expected {form}, each {what} once")
        found[name] = value
    return found
