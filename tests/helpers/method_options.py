"""The options of every method, what they may be, and what a method is given in a step."""

from __future__ import annotations

import ast
import inspect
import itertools
from typing import Any

import pytest

from dense_kd import KDMethod, methods
from dense_kd.detectors.base.heads import BRANCHES, PRE_RELU
from dense_kd.methods import Needs, Step
from dense_kd.outputs import DensePass
from helpers.method_cases import PAIRS

NOT_TRIED = {
    "class_map": "which classes correspond: see test_class_maps.py",
    "first_iter": "when it teaches: see test_from_teacher.py",
    "last_iter": "when it teaches: see test_from_teacher.py",
    "method": "another one, with options of its own: see test_from_teacher.py",
    "teacher": "a network: see test_feature_teacher.py and test_from_teacher.py",
    "warmup_iters": "not of the loss, see test_kd_method.py",
}
VALUES: dict[str, list[Any]] = {
    "padding_multiple": [None, 8],
    "depth": [0, 1, 2, {"cls": 0, "bbox": 1}],
    "branches": [("cls",), ("bbox",)],
    "omitted_levels": [(0,), (-1,)],
    "taps": [("cls",), (("cls", 1),)],
    "nms_thresh": [None, 0.0, 0.9],
    "beta": [0.2, 0.0],
    "gamma": [0.5, 0.01, 0.0],
    "resized": ["teacher"],
    "cls_part": [0.2, 0.5],
}
"""Others than the default, of options whose default does not say what they may be."""
CHOICES = ("depth", "branches")
"""Of which the others may depend, besides options that are words or flags, and weights of 0."""
WEIGHTS = {"PGD": ("alpha", "beta", "gamma", "delta")}
"""Of terms that may be left out, where their names do not end with "_weight"."""


class Probe(KDMethod):
    """Keeps what a method gets in a step."""

    def __init__(self, depth: int):
        super().__init__()
        taps = [(branch, i) for branch in BRANCHES for i in range(depth + 1)]
        taps += [(branch + PRE_RELU, i) for branch in BRANCHES for i in range(1, depth + 1)]
        self.needs = Needs(taps=tuple(taps))

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict:
        self.seen = student, teacher, step
        return {}


def other_values(name: str, option: str, value: Any) -> list[Any]:
    """Values of an option other than ``value``."""
    if option in VALUES:
        return [x for x in VALUES[option] if x != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        with pytest.raises(ValueError) as error:
            getattr(methods, name)(**{option: "?"})
        choices = ast.literal_eval(str(error.value).partition("expected one of ")[2])
        return [x for x in choices if x != value]
    if isinstance(value, int):
        return [1, value + 1, 2 * value]
    assert isinstance(value, float), f"{name}.{option}={value!r}: give other values in VALUES"
    return [x for x in (0.5 * value, 1.5 * value, 0.75 * value + 0.25, 0.1) if x != value]


def options_of(name: str) -> dict[str, Any]:
    """{option of the method: its default}, of those that the tests try."""
    parameters = inspect.signature(getattr(methods, name)).parameters
    return {k: p.default for k, p in parameters.items() if k not in NOT_TRIED}


def contexts() -> list[Any]:
    """(method, variant, {further option: its value}): the pairs, each choice beside, and each set
    of terms that is left out."""
    found: list[Any] = []
    for name, variants in PAIRS.items():
        if not options_of(name):
            continue
        for variant, pair in variants.items():
            found.append((name, variant, {}))
            found += [(name, variant, weights) for weights in _left_out(name)]
            for option, default in options_of(name).items():
                if option in CHOICES or (isinstance(default, (str, bool)) and option != "resized"):
                    value = pair.options.get(option, default)
                    for other in other_values(name, option, value):
                        found.append((name, variant, {option: other}))
    return found


def _left_out(name: str) -> list[dict[str, float]]:
    """Weights of 0: of each set of the terms of a method but that of all."""
    named = [option for option in options_of(name) if option.endswith("_weight")]
    weights = WEIGHTS.get(name, named)
    sets = (itertools.combinations(weights, number) for number in range(1, len(weights)))
    return [dict.fromkeys(chosen, 0.0) for chosen in itertools.chain.from_iterable(sets)]
