"""Describe the LazyCalls of a config in containers, texts and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from .allowed import NAMED, name_of
from .building import TARGET


class IndescribableError(ValueError):
    """A config holds an object that no text or number says how to make."""


def describe(value: Any, place: str) -> Any:
    """What :func:`.building.build_described` makes the same of as ``instantiate`` does.

    References are replaced by what they refer to. What is not in the table of :mod:`.allowed` is
    named as well, so that an error can say what is missing.

    Args:
        value: a LazyConfig, or a part of one.
        place: what ``value`` is, for errors.

    Raises:
        IndescribableError: it holds an object, which is no class and no function.
    """
    if isinstance(value, ShapeSpec):
        fields = ("channels", "height", "width", "stride")  # a tuple in 0.5, a dataclass in main
        return {TARGET: name_of(ShapeSpec), **{name: getattr(value, name) for name in fields}}
    if value is None or type(value) in (str, bool, int, float):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):  # as the choices of PIL, or numbers of numpy
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        made = {
            str(key): _target(item, place) if key == TARGET else describe(item, f"{place}.{key}")
            for key, item in value.items()
        }
        made_of = OmegaConf.get_type(value) if isinstance(value, DictConfig) else dict
        if dataclasses.is_dataclass(made_of):  # what OmegaConf makes of an object of it
            made = {TARGET: name_of(made_of), **made}
        return made
    if isinstance(value, (list, tuple)) or OmegaConf.is_list(value):
        return [describe(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if callable(value) and hasattr(value, "__qualname__"):
        return {TARGET: NAMED, "name": name_of(value)}
    raise IndescribableError(
        f"{place} is an object, {type(value).__module__}.{type(value).__qualname__}; a checkpoint "
        "describes texts, numbers, lists, and LazyCalls of classes and functions"
    )


def _target(target: Any, place: str) -> str:
    if isinstance(target, str):  # a config that was saved as YAML
        try:
            target = locate(target)
        except Exception:  # whatever importing a module raises
            return target
    if not callable(target):
        raise IndescribableError(f"{place}.{TARGET} is a {type(target).__qualname__}, not a name")
    return name_of(target)
