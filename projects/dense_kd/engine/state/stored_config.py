"""The config of a run in its checkpoints, and how it differs from another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..checks.tree import PARTS, referred_names

# What LazyConfig puts before the name of a config file, anew each time it is loaded.
_PACKAGE = re.compile(r"_cfg_loader\w*\.")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_OURS = __name__.partition(".")[0] + "."
_SHAPE = ["channels", "height", "width", "stride"]
_OF_A_PLACE = {"train.output_dir", "train.overwrite"}


class StoredConfig:
    """Lets a checkpointer save the config of the run, in containers, strings and numbers.

    :mod:`.run_folder` compares it before anything is loaded.
    """

    def __init__(self, cfg: DictConfig):
        self._plain = plain_config(cfg)

    def state_dict(self) -> dict[str, Any]:
        """The config, see :func:`plain_config`."""
        return self._plain

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep that of this run."""


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """What a run reads of ``cfg``; what is called becomes its dotted name.

    Interpolations stay as they are, so that a change shows in one place.
    """
    plain = _plain(OmegaConf.to_container(cfg, resolve=False))
    read = {*PARTS, *referred_names(cfg)}
    return {name: value for name, value in plain.items() if name in read}


def at(config: Any, place: str, default: Any = None) -> Any:
    """The entry at a dotted name of a config in containers, or ``default``.

    A reference (``${train.max_iter}``) is followed, from a whole config; one that leads nowhere
    is as if there was no entry.
    """
    value = config
    for key in place.split("."):
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
        if isinstance(value, str) and "${" in value:
            return _followed(config, place, default)
    return value


def _followed(config: Any, place: str, default: Any) -> Any:
    try:
        found = OmegaConf.select(OmegaConf.create(config), place, default=default)
    except OmegaConfBaseException:
        return default
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


class _Loader(yaml.SafeLoader):
    """Safe, and at ease with the classes, functions and tuples that detectron2 writes."""


def _as_plain(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return suffix.partition(":")[2] or loader.construct_scalar(node)


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _as_plain)


def config_of_text(text: str) -> Any:
    """What ``LazyConfig.save`` has written, in containers, texts and numbers; no code is run.

    Raises:
        ValueError, yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, _Loader)


def differences(old: Any, new: Any) -> dict[str, str]:
    """What differs between containers of texts and numbers, as :func:`config_changes` says it."""
    return dict(_differences(_plain(old), _plain(new)))


def config_changes(saved: Mapping[str, Any], cfg: DictConfig) -> dict[str, str]:
    """What differs, but for the folder of the run.

    Args:
        saved: a :func:`plain_config`.
        cfg: the config of this run.

    Returns:
        {dotted name: "old -> new"}; of what only one of them has, the topmost name.
    """
    changes = dict(_differences(saved, plain_config(cfg)))
    return {name: change for name, change in changes.items() if name not in _OF_A_PLACE}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return _PACKAGE.sub("", value)
    if hasattr(value, "__qualname__"):
        # A function that a config file defines has no module.
        named = _convert_target_to_string(value) if value.__module__ else value.__qualname__
        return _PACKAGE.sub("", named)
    return _ADDRESS.sub("", repr(value))


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{name}.{key}" if name else key
            if key not in old:
                yield place, f"(absent) -> {short(new[key])}"
            elif key not in new:
                yield place, f"{short(old[key])} -> (absent)"
            else:
                yield from _differences(old[key], new[key], place)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [_differences(a, b, f"{name}.{i}") for i, (a, b) in enumerate(zip(old, new))]
        if any(isinstance(item, (Mapping, list)) for item in (*old, *new)):
            for part in parts:
                yield from part
        elif old != new:
            yield name, f"{short(old)} -> {short(new)}"
    elif _shape(old) is not None and _shape(old) == _shape(new):
        return
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        if not _is_moved(old, new):
            yield name, f"{short(old)} -> {short(new)}"


def _shape(value: Any) -> list[Any] | None:
    """That of a ShapeSpec: a tuple in detectron2 0.5, a dataclass in later versions."""
    if isinstance(value, Mapping) and list(value) == _SHAPE:
        return list(value.values())
    return value if isinstance(value, list) and len(value) == 4 else None


def _is_moved(old: Any, new: Any) -> bool:
    """Whether both name one class or function of this package, which lay elsewhere before.

    Names are as public as they can be, but what no ``__init__`` exports has that of its module.
    """
    if not all(isinstance(name, str) and name.startswith(_OURS) for name in (old, new)):
        return False
    before, now = _located(old), _located(new)
    if now is None or before not in (None, now):
        return False
    return old.endswith(f".{getattr(now, '__qualname__', new)}")


def _located(name: str) -> Any:
    try:
        return locate(name)
    except Exception:  # whatever importing a module raises
        return None


def short(value: Any) -> str:
    """As Python, cut at 200 characters; a described call as its name and arguments."""
    if isinstance(value, Mapping):
        arguments = [f"{k}={short(v)}" for k, v in value.items() if k != "_target_"]
        called = str(value.get("_target_", "dict")).rpartition(".")[2]
        text = f"{called}({', '.join(arguments)})"
    elif isinstance(value, list):
        text = f"[{', '.join(map(short, value))}]"
    else:
        text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
