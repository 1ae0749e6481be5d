"""A study as a YAML file: pairs of detectors, methods for each, and seeds."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..arguments import is_integer
from ..config import config_folder
from .cells import TEACHER, Cell
from .errors import StudyError

__all__ = ["Block", "Study", "find_study", "read_study"]

_STUDY = ("title", "evaluate", "seeds", "overrides", "diagnostics", "pairs", "shared")
_PAIR = ("title", "teacher", "student", "methods")
_DETECTOR = ("config", "overrides", "seed")
_METHOD = ("methods", "balance", "init_student", "overrides")
_SET_BY_STUDY = {
    "train.seed": "`seeds`",
    "dataloader.train.seed": "`seeds`",
    "train.diagnostics.period": "`diagnostics`",
    "train.output_dir": "--output",
    "dataloader.test.dataset.names": "`evaluate`",
    "dataloader.evaluator.output_dir": "--output",
}
"""{entry of a config that a cell sets itself: what sets it}."""


@dataclasses.dataclass(frozen=True)
class Block:
    """The cells of one pair with one seed, which are compared with each other.

    Attributes:
        teacher: the cell that trains the pair's teacher; None of a pair without one.
        cells: those of the students, in the order of the file.
    """

    pair: str
    seed: int
    teacher: Cell | None
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """What a file describes.

    Attributes:
        name: that of the file.
        title: for the page.
        pair_titles: {pair: for the page}.
        evaluate: the datasets.
        seeds: of the students.
        blocks: all cells, seed by seed, and pair by pair within a seed.
    """

    name: str
    title: str
    pair_titles: dict[str, str]
    evaluate: tuple[str, ...]
    seeds: tuple[int, ...]
    blocks: tuple[Block, ...]

    def cells(self) -> Iterator[Cell]:
        """Those of the students."""
        for block in self.blocks:
            yield from block.cells

    def chosen(self, names: Iterable[str]) -> tuple[Block, ...]:
        """The blocks with the cells that are asked for alone.

        Args:
            names: each "PAIR/METHOD/SEED", or with ``*`` for one of them; none chooses all.

        Raises:
            StudyError: one of them is the name of no cell.
        """
        names = list(names)
        if not names:
            return self.blocks
        found: list[Block] = []
        taken: set[str] = set()
        for block in self.blocks:
            cells = []
            for cell in block.cells:
                fitting = {name for name in names if _fits(cell, name)}
                taken |= fitting
                cells += [cell] if fitting else []
            if cells:
                found.append(dataclasses.replace(block, cells=tuple(cells)))
        unknown = [name for name in names if name not in taken]
        if unknown:
            known = [cell.name for cell in self.cells()]
            near = difflib.get_close_matches(unknown[0], known, n=3, cutoff=0.3) or known[:3]
            raise StudyError(
                f"--only {unknown[0]}: no cell of {self.name} is PAIR/METHOD/SEED of that name, "
                f"with * for any; there is {', '.join(near)}"
            )
        return tuple(found)


def find_study(name: str) -> Path:
    """The file that a path, or the name of a study of this project, stands for.

    Raises:
        StudyError: there is none.
    """
    folder = config_folder() / "study"
    for place in (Path(name), folder / name, folder / f"{name}.yaml"):
        if place.is_file():
            return place
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise StudyError(f"there is no study {name!r}; expected a YAML file, or one of {known}")


def read_study(name: str) -> Study:
    """Read a study, and check all that can be told without building a detector.

    Args:
        name: of :func:`find_study`.

    Raises:
        StudyError: it cannot be read, or something in it is wrong; the message says where.
    """
    file = find_study(name)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StudyError(f"{file} cannot be read: {error}") from error
    reader = _Reader(str(file))
    reader.entries(content, "", _STUDY, needed=("evaluate", "seeds", "pairs"))
    evaluate = reader.texts(content["evaluate"], "evaluate")
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(map(_is_seed, seeds)):
        reader.fail("seeds", seeds, "a list of integers, 0 or more")
    if len(set(seeds)) < len(seeds):
        reader.fail("seeds", seeds, "each seed once")
    if not evaluate or len(set(evaluate)) < len(evaluate):
        reader.fail("evaluate", content["evaluate"], "one or more datasets, each once")
    common = reader.overrides(content.get("overrides"), "overrides")
    diagnostics = content.get("diagnostics", 0)
    if not is_integer(diagnostics) or diagnostics < 0:
        reader.fail("diagnostics", diagnostics, "iterations between two measurements, or 0")
    if not isinstance(content["pairs"], dict) or not content["pairs"]:
        reader.fail("pairs", content["pairs"], "{name: pair}")
    blocks: dict[tuple[int, str], Block] = {}
    titles = {}
    for pair, entry in content["pairs"].items():
        place = f"pairs.{pair}"
        reader.name(pair, place)
        reader.entries(entry, place, _PAIR, needed=("student", "methods"))
        titles[pair] = str(entry.get("title") or pair)
        student_config, student_overrides, _ = reader.detector(
            entry["student"], f"{place}.student", with_seed=False
        )
        teacher = None
        if "teacher" in entry:
            config, overrides, seed = reader.detector(entry["teacher"], f"{place}.teacher")
            teacher = Cell(
                study=file.stem,
                pair=pair,
                method=TEACHER,
                seed=seed,
                config=config,
                evaluate=evaluate,
                overrides=(*common, *overrides),
            )
        if not isinstance(entry["methods"], dict) or not entry["methods"]:
            reader.fail(f"{place}.methods", entry["methods"], "{name: method}")
        for seed in seeds:
            cells = []
            for method, given in entry["methods"].items():
                options = reader.method(method, given, f"{place}.methods.{method}")
                overrides = (*common, *student_overrides, *options.pop("overrides"))
                taught = bool(options["methods"])
                cells.append(
                    Cell(
                        study=file.stem,
                        pair=pair,
                        method=method,
                        seed=seed,
                        config=student_config,
                        evaluate=evaluate,
                        overrides=overrides,
                        teacher=teacher if taught else None,
                        diagnostics=diagnostics if taught else 0,
                        **options,
                    )
                )
            blocks[seed, pair] = Block(pair, seed, teacher, tuple(cells))
    order = [(seed, pair) for seed in seeds for pair in content["pairs"]]
    title = str(content.get("title") or file.stem)
    return Study(
        file.stem, title, titles, evaluate, tuple(seeds), tuple(blocks[key] for key in order)
    )


class _Reader:
    """Checks the entries of a file; errors name it and the entry."""

    def __init__(self, file: str):
        self.file = file

    def fail(self, place: str, value: object, expected: str) -> None:
        raise StudyError(f"{self.file}: {place} is {value!r}; expected {expected}")

    def name(self, value: Any, place: str) -> None:
        """Of a pair or a method: part of names of files."""
        if not isinstance(value, str) or not value.replace("_", "").isalnum() or value == TEACHER:
            self.fail(place, value, f"a name of letters, digits and _, and not {TEACHER!r}")

    def entries(
        self, value: Any, place: str, known: Sequence[str], needed: Sequence[str] = ()
    ) -> None:
        """An object with some of the ``known`` entries, and all that are ``needed``."""
        if not isinstance(value, Mapping):
            self.fail(place or "the file", value, f"entries {', '.join(known)}")
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1) or known
                dotted = f"{place}.{key}".lstrip(".")
                raise StudyError(
                    f"{self.file}: {dotted} is no entry; did you mean {' or '.join(near)}?"
                )
        for key in needed:
            if key not in value:
                raise StudyError(f"{self.file}: {f'{place}.{key}'.lstrip('.')} is missing")

    def texts(self, value: Any, place: str) -> tuple[str, ...]:
        """A list of texts."""
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.fail(place, value, "a list of texts")
        return tuple(value)

    def overrides(self, value: Any, place: str) -> tuple[str, ...]:
        """Overrides of a config, without entries that the study sets; None is no override."""
        overrides = self.texts([] if value is None else value, place)
        for override in overrides:
            name = override.partition("=")[0].lstrip("+")
            for entry, instead in _SET_BY_STUDY.items():
                if f"{entry}.".startswith(f"{name}."):
                    self.fail(place, override, f"{instead}, which sets {entry}")
        return overrides

    def detector(
        self, value: Any, place: str, with_seed: bool = True
    ) -> tuple[str, tuple[str, ...], int]:
        """Config, overrides and seed; a text is the config alone."""
        value = {"config": value} if isinstance(value, str) else value
        known = _DETECTOR if with_seed else _DETECTOR[:2]
        self.entries(value, place, known, needed=("config",))
        if not isinstance(value["config"], str):
            self.fail(f"{place}.config", value["config"], "the name of a config")
        seed = value.get("seed", 1)
        if not _is_seed(seed):
            self.fail(f"{place}.seed", seed, "an integer, 0 or more")
        overrides = self.overrides(value.get("overrides"), f"{place}.overrides")
        return value["config"], overrides, seed

    def method(self, name: Any, value: Any, place: str) -> dict[str, Any]:
        """Options of a :class:`Cell`; an entry without anything is the student alone."""
        self.name(name, place)
        value = {} if value is None else value
        self.entries(value, place, _METHOD)
        found: dict[str, Any] = {
            "methods": value.get("methods") or {},
            "init_student": value.get("init_student", False),
            "balance": value.get("balance"),
            "overrides": self.overrides(value.get("overrides"), f"{place}.overrides"),
        }
        if not isinstance(found["methods"], dict) or not all(
            isinstance(kind, str) and (options is None or isinstance(options, dict))
            for kind, options in found["methods"].items()
        ):
            self.fail(f"{place}.methods", found["methods"], "{class of dense_kd.methods: options}")
        found["methods"] = {kind: options or {} for kind, options in found["methods"].items()}
        if not isinstance(found["init_student"], bool):
            self.fail(f"{place}.init_student", found["init_student"], "true or false")
        if found["balance"] is not None and not isinstance(found["balance"], dict):
            self.fail(f"{place}.balance", found["balance"], "{option of Balance: value}")
        for name in ("init_student", "balance"):
            if found[name] not in (False, None) and not found["methods"]:
                self.fail(f"{place}.{name}", found[name], "a method beside it, with the teacher")
        return found


def _is_seed(value: Any) -> bool:
    return is_integer(value) and value >= 0  # below 0 is one that is drawn


def _fits(cell: Cell, name: str) -> bool:
    wanted, parts = name.split("/"), cell.name.split("/")
    return len(wanted) == 3 and all(w in ("*", part) for w, part in zip(wanted, parts))
