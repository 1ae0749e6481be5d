"""Overrides of the command line: each must reach something that the run reads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from ...arguments import accepts, parameters_of, takes_any
from .errors import RunError, choice, near
from .rules import Rule
from .tree import PARTS, has_entries, referred_names, select, target_of
from .values import TRAIN


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """``cfg`` with overrides as ``train.max_iter=100``.

    Raises:
        RunError: lists all that cannot be read, or that would change nothing.
    """
    found = []
    for override in overrides:
        problem = _problem(cfg, override)
        if problem is None:
            try:
                cfg = LazyConfig.apply_overrides(cfg, [override])
            except Exception as error:  # of omegaconf
                problem = f"{override}: {error}"
        if problem is not None:
            found.append(problem)
    if found:
        raise RunError(found)
    return cfg


def gives(overrides: Sequence[str], place: str) -> bool:
    """Whether one of the overrides is of the entry at a dotted name, in whichever way it is written
    (``++train.seed=1``, ``train={seed:1}``)."""
    given: Any = OmegaConf.create({})
    for override in overrides:
        with contextlib.suppress(Exception):  # what cannot be read is said where it is applied
            given = LazyConfig.apply_overrides(given, [override])
    for key in place.split("."):
        if not isinstance(given, DictConfig) or not has_entries(given) or key not in given:
            return False
        given = given._get_node(key)
    return True


def _problem(cfg: DictConfig, override: str) -> str | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if override.startswith("-"):
        return f"{override}: unknown option; --help lists them, overrides are as train.max_iter=100"
    if "=" not in override:
        return f"{override}: expected an override as train.max_iter=100, with = and no spaces"
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except Exception as error:  # of the grammar
        return (
            f"{override}: cannot be read ({str(error).splitlines()[0]}); put a text with signs "
            """in two pairs of quotes, as in 'train.output_dir="a b=c"'"""
        )
    if parsed.is_delete():
        return f"{override}: nothing can be deleted; null may switch it off"
    if parsed.is_sweep_override():
        return f"{override}: several values; expected one, a list is written [1,2]"
    keys = parsed.key_or_group.split(".")
    problem = _unreached(cfg, keys)
    return None if problem is None else f"{override}: {problem}"


def _unreached(cfg: DictConfig, keys: list[str]) -> str | None:
    """Why nothing would read the entry at ``keys``; None if something does."""
    if keys[0] not in PARTS and keys[0] not in referred_names(cfg):
        known = [part for part in PARTS if part in cfg]
        below = [f"{part}.{'.'.join(keys)}" for part in known]
        below += [".".join(keys[1:])] if keys[1:2] and keys[1] in PARTS else []
        below += ["model." + ".".join([keys[0], *keys[2:]])] if keys[1:2] == ["model"] else []
        meant = [path for path in below if _exists(cfg, path)]
        if meant:
            return f"the run does not read it; did you mean {' or '.join(meant)}?"
        return f"no part of a run has this name; {choice(keys[0], known)}"
    if keys[0] not in cfg:
        return f"the config has no {keys[0]!r}; it has {sorted(map(str, cfg))}"
    node: Any = cfg
    for depth, key in enumerate(keys):
        place = ".".join(keys[:depth]) or "the config"
        if isinstance(node, ListConfig):
            if not key.isdigit() or int(key) >= len(node):
                return (
                    f"{place} is a list of {len(node)}; expected 0 to {len(node) - 1} and not {key}"
                )
            node = node[int(key)]
        elif isinstance(node, DictConfig):
            if key in node:
                node = select(node, key)
                continue
            return _new_entry(cfg, node, keys, depth)
        elif node is not None:
            return f"{place} is {node!r} and has no entries"
        elif keys[0] == "train":
            return _new_entry(cfg, None, keys, depth)
    return None


def _new_entry(cfg: DictConfig, node: DictConfig | None, keys: list[str], depth: int) -> str | None:
    place, key = ".".join(keys[:depth]), keys[depth]
    last = depth + 1 == len(keys)
    if keys[0] == "train":
        known = _train_entries(keys[:depth])
        if key in known or key in referred_names(cfg):
            return None
    elif place == "dataloader":
        known = {"train", "test", "evaluator", "unlabelled"}
        if key in known:
            return None
    elif node is not None and "_target_" in node:
        target = target_of(node)
        parameters = parameters_of(target) if target is not None else None
        if parameters is None:
            return None
        known = {name for name in parameters if accepts(parameters, name)} | set(node)
        new_call = keys[depth + 1 :] == ["_target_"]
        named = key in parameters or not takes_any(parameters)
        if accepts(parameters, key) and (last or named or new_call):
            return None
        if takes_any(parameters):
            known = set(node)
        known.discard("_target_")
    else:
        return None  # a dict that is an argument as it is, like a class_map
    elsewhere = [path for path in _paths_that_end_with(cfg, keys[-1]) if path != ".".join(keys)]
    also = ""
    if elsewhere and not near(key, known):
        also = f"; {keys[-1]} is in {', '.join(elsewhere[:4])}"
    return f"{place} has no {key!r}; {choice(key, known)}{also}"


def _train_entries(keys: list[str]) -> set[str]:
    rules: Any = TRAIN
    for key in keys[1:]:
        rules = rules.get(key, {})
        if isinstance(rules, Rule):
            return set()
    return set(rules)


def _exists(cfg: DictConfig, path: str) -> bool:
    missing = object()
    return select(cfg, path, missing) is not missing


def _paths_that_end_with(cfg: DictConfig, name: str) -> list[str]:
    found: list[str] = []

    def visit(node: Any, place: str) -> None:
        if isinstance(node, DictConfig) and has_entries(node):
            for key in node:
                if key == name:
                    found.append(f"{place}.{key}")
                if isinstance(node._get_node(key), DictConfig):
                    visit(node._get_node(key), f"{place}.{key}")

    for part in PARTS:
        if part in cfg:
            visit(cfg[part], part)
    return found
