"""The LazyCalls of a config: arguments that their targets do not take, lack, or cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...arguments import accepts, missing_arguments, parameters_of, type_problem
from ...methods import KDMethod, MethodSet
from .errors import choice
from .tree import PARTS, calls, calls_of, target_of

# What the engine puts there: detectron2's function lists the parameters of the model.
_GIVEN_LATER = {("optimizer.params", "model")}


def problems(cfg: DictConfig) -> Iterator[str]:
    """All calls of the parts of a config, and the options of its methods."""
    found = [
        problem
        for part in PARTS
        if part in cfg
        for place, node in calls(cfg[part], part)
        for problem in call_problems(place, node)
    ]
    yield from found
    if not found:
        yield from _method_problems(cfg)


def call_problems(place: str, node: DictConfig) -> Iterator[str]:
    """What is wrong with the arguments of the LazyCall ``node`` at ``place`` of a config."""
    target = target_of(node)
    if target is None:
        found, value = _value(node, "_target_")
        if not found:
            yield f"{place}._target_: {value}"
        elif isinstance(value, str):
            yield f"{place}._target_={value}: nothing of that name can be imported"
        else:
            yield f"{place}._target_={value!r}: expected the dotted name of a class or function"
        return
    parameters = parameters_of(target)
    if parameters is None:
        return
    name = getattr(target, "__qualname__", repr(target))
    given = {key for key in node if key != "_target_"}
    known = [key for key in parameters if accepts(parameters, key)]
    for key in sorted(key for key in given if not accepts(parameters, key)):
        yield f"{place}.{key}: {name} takes no argument {key!r}; {choice(key, known)}"
    for key in missing_arguments(parameters, given):
        if (place, key) not in _GIVEN_LATER:
            yield f"{place}.{key} is missing: {name} needs this argument"
    for key in sorted(given):
        found, value = _value(node, key)
        if not found:
            if (place, key) not in _GIVEN_LATER:
                yield f"{place}.{key}: {value}"
        elif key in parameters:
            expected = type_problem(parameters[key], value)
            if expected:
                yield f"{place}.{key}={value!r}: {name} expects {expected}"


def _value(node: DictConfig, key: str) -> tuple[bool, Any]:
    """(True, its value), or (False, why there is none)."""
    if OmegaConf.is_missing(node, key):
        return False, "has no value yet (???); give it one"
    try:
        return True, node[key]
    except OmegaConfBaseException as error:
        raw = node._get_node(key)._value()
        return False, f"{raw} refers to nothing ({str(error).splitlines()[0]})"


def _method_problems(cfg: DictConfig) -> Iterator[str]:
    """Methods, and what sets their weights, check their options when they are built, which costs
    nothing."""
    for kind in (KDMethod, MethodSet):
        found = False
        for place, node in calls_of(cfg.model, "model", kind):
            try:
                with torch.random.fork_rng(devices=[]):
                    instantiate(node)
            except Exception as error:  # of any method
                found = True
                yield f"{place}: {error}"
        if found:  # what holds a method that cannot be built cannot be built either
            return
