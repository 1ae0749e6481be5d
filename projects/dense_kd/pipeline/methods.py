"""Methods by name, with the options that a config of this project has for such a student."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from ..config import config_folder, get_config
from ..methods import Balance, KDMethod, MethodSet, method_classes
from .derive import warmup
from .errors import PipelineError

__all__ = ["ChosenMethods", "choose_methods", "methods_by_name"]

_FLAGS = ("init_student", "targets_from_teacher")
_OTHER_DATA = "voc_"
_OTHER_RECIPE = "pgd_"
_OF_ANY_DETECTOR = ("fgfi", "tid")
"""Methods whose options depend on the features: where a detector has no config, GFL's are taken."""
_EXAMPLES = {"dsi": "dsi", "fromteacher": "two_teachers"}
"""{method that brings a network along: config that gives it one}."""


@dataclasses.dataclass(frozen=True)
class ChosenMethods:
    """Methods and their options.

    Attributes:
        options: {name: (class, its options)}.
        flags: options of the Distiller that the methods' configs set.
        origins: {name: where its options are from, in words}.
    """

    options: dict[str, tuple[type[KDMethod], dict[str, Any]]]
    flags: dict[str, bool]
    origins: dict[str, str]

    def fitted(self, iterations: int) -> ChosenMethods:
        """The same, with warm-ups that end within the training: otherwise a method would never
        have its weights, or teach nothing at all.

        Args:
            iterations: of the training.
        """
        options, origins = dict(self.options), dict(self.origins)
        for name, (kind, given) in self.options.items():
            default = inspect.signature(kind).parameters["warmup_iters"].default
            usual = given.get("warmup_iters", default)
            if 0 < iterations <= usual:
                number = warmup(iterations, None)
                options[name] = (kind, {**given, "warmup_iters": int(number.value)})
                origins[name] += f", but warmup_iters: {number.reason}; {usual} would be all of it"
        return dataclasses.replace(self, options=options, origins=origins)

    def lazy(self, balance: float | None) -> DictConfig:
        """The LazyCall of their MethodSet.

        Args:
            balance: the share of the gradient that each gets by itself, see
                :class:`dense_kd.methods.Balance`; None leaves weights as they are.
        """
        methods = {name: L(c)(**given) for name, (c, given) in self.options.items()}
        if balance is not None:
            methods["balance"] = L(Balance)(target=balance)
        return L(MethodSet)(**methods)


def methods_by_name() -> dict[str, type[KDMethod]]:
    """{name: class} of all methods; the name is that of their folder in ``configs/``. Those that
    bring a network along are not among them: only a config can give it."""
    return {name: value for name, value in _all_by_name().items() if not value.needs.network}


def _all_by_name() -> dict[str, type[KDMethod]]:
    return {name.lower(): value for name, value in method_classes().items()}


def choose_methods(text: str, detector: str, small: bool) -> ChosenMethods:
    """The methods of ``--method``.

    Args:
        text: a name of :func:`methods_by_name`, or several joined by "+".
        detector: of the student, such as "gfl"; "" if it is not known.
        small: whether the student is a small one.

    Raises:
        PipelineError: there is no such method, or one is given twice.
    """
    known = methods_by_name()
    names = [name.strip().lower() for name in text.split("+")]
    for name in names:
        if name in _all_by_name() and name not in known:
            raise PipelineError(
                f"method={text!r}: {name} learns from a network that only a config can give; write "
                f"one as configs/quickstart/{_EXAMPLES[name]}.py and train it with dense-kd train"
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
            meant = f"did you mean {' or '.join(near)}? There is " if near else "there is "
            raise PipelineError(
                f"method={text!r}: no method {name!r}; {meant}{', '.join(sorted(known))}, and "
                "several of them joined by +"
            )
    if len(set(names)) < len(names):
        raise PipelineError(f"method={text!r} has a method twice")
    chosen = ChosenMethods({}, {}, {})
    for name in names:
        config = _config_of(name, detector, small)
        options: dict[str, Any] = {}
        if config is None:
            chosen.origins[name] = "its defaults"
        else:
            model = get_config(config).model
            options = OmegaConf.to_container(model.methods[name], resolve=True)
            options.pop("_target_")
            chosen.flags.update({flag: True for flag in _FLAGS if model.get(flag)})
            chosen.origins[name] = f"as {config}"
        chosen.options[name] = (known[name], options)
    return chosen


def _config_of(name: str, detector: str, small: bool) -> str | None:
    """The config with the options: its main one for that detector."""
    folder = config_folder()
    if small:
        candidates = [f"quickstart/{name}.py", "quickstart/distill.py"]
    else:
        files = [f"{name}/{file.name}" for file in (folder / name).glob("*.py")]
        candidates = []
        for of in (detector, "gfl") if name in _OF_ANY_DETECTOR else (detector,):
            pattern = re.compile(rf"({_OTHER_RECIPE})?{of}_.*")
            candidates += sorted(
                (f for f in files if of and pattern.fullmatch(Path(f).stem)),
                # The shortest name is the main row of a table; the others vary something.
                key=lambda f: (Path(f).name.startswith(_OTHER_RECIPE), len(f), f),
            )
    for candidate in candidates:
        if (folder / candidate).is_file() and list(
            get_config(candidate).model.get("methods", ())
        ) in (["_target_", name], [name, "_target_"]):
            return candidate
    return None
