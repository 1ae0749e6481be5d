"""The pass over a config before a run; each file of this folder judges one side of it."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from ..state import run_folder
from . import calls, data, detectors, device, files, pretrained, teacher_cache, unlabelled, values
from .errors import RunError, choice, near
from .tree import PARTS, has_entries, referred_names, select, unresolved

NEEDED = {
    "train": PARTS,
    "evaluate": ("model", "dataloader", "train"),
    "evaluate_teacher": ("model", "dataloader", "train"),
}
_LOADERS = ("train", "test", "evaluator", "unlabelled")


def check_run(
    cfg: DictConfig,
    mode: str,
    *,
    resume: bool = False,
    num_processes: int | None = None,
    per_machine: int | None = None,
) -> None:
    """Raise :class:`RunError` with all that is wrong with a run; nothing is loaded or written.

    Args:
        cfg: the config with its overrides.
        mode: "train", "evaluate" or "evaluate_teacher".
        resume: whether the run goes on with its own last checkpoint.
        num_processes: of the run; None: those that run now.
        per_machine: those that will be started here; None: they run already.
    """
    num_processes = comm.get_world_size() if num_processes is None else num_processes
    found = [*_structure(cfg, mode)]
    if not found:
        found += _missing_needs(cfg, mode)
        found += calls.problems(cfg)
        found += values.problems(cfg, mode, num_processes)
        found += detectors.problems(cfg)
        found += pretrained.problems(cfg, mode)
        chosen = select(cfg, "train.device")
        if isinstance(chosen, str):
            found += device.problems(chosen, num_processes, per_machine)
        found += files.problems(cfg, mode, resume)
        found += data.problems(cfg, mode)
        if mode == "train":
            found += unlabelled.problems(cfg)
            found += teacher_cache.problems(cfg)
        if mode == "train" and not found:
            found += run_folder.problems(cfg, resume)
    if found:
        raise RunError(found)


def _structure(cfg: DictConfig, mode: str) -> Iterator[str]:
    """Parts and entries that must be there for the rest to be judged."""
    for part in PARTS:
        if part in cfg:
            yield from unresolved(cfg._get_node(part), part)
    for part in NEEDED[mode]:
        if part not in cfg or select(cfg, part) is None:
            null = " (it is null)" if part in cfg else ""
            slips = near(part, set(map(str, cfg)) - set(PARTS), 1)
            meant = f"; is {slips[0]!r} meant to be it?" if slips else ""
            yield (
                f"the config has no {part!r}{null}; it has {sorted(map(str, cfg))} (names in a "
                f"config file that are no LazyCall and no dict do not count){meant}"
            )
        elif part in ("dataloader", "train") and not isinstance(cfg[part], DictConfig):
            yield f"{part}={cfg[part]!r}: expected entries, as in configs/common"
        elif part in ("optimizer", "lr_multiplier") and not isinstance(cfg[part], DictConfig):
            yield f"{part}={cfg[part]!r}: expected a LazyCall, as in configs/common"


def _missing_needs(cfg: DictConfig, mode: str) -> Iterator[str]:
    if mode == "train" and select(cfg, "dataloader.train") is None:
        yield "dataloader has no train, the loader of what is learnt from"
    if mode != "train" and select(cfg, "dataloader.test") is None:
        yield "dataloader has no test, the loader of what is evaluated on"
    if mode == "evaluate_teacher" and select(cfg, "model.teacher._target_") is None:
        null = "teacher" in cfg.model and select(cfg, "model.teacher") is None
        yield (
            f"{'model.teacher is null' if null else 'model has no teacher'}; --eval-teacher needs "
            "the config of a Distiller with a detector that is the teacher"
        )
    for key in _LOADERS:
        value = select(cfg.dataloader, key)
        if isinstance(value, (str, int, float)):
            yield f"dataloader.{key}={value!r}: expected a LazyCall, as in configs/common/data"
    referred = referred_names(cfg)
    for key in cfg.dataloader:
        if key not in _LOADERS and key not in referred:
            yield f"dataloader.{key}: no such entry; {choice(key, _LOADERS)}"
    for key in set(cfg) - set(PARTS) - referred:
        yield from _misspelt_part(cfg, key)


def _misspelt_part(cfg: DictConfig, key: str) -> Iterator[str]:
    """Other names at the top are the config's own, unless one is surely a slip.

    That is: a letter or two away from a part, shaped as the part is, and with something in it that
    the part does not have. ``optim``, ``trainer`` or ``model_args`` are no slips.
    """
    node = cfg._get_node(key)
    for part in near(key, PARTS, 1, likeness=0.8):
        if key in part or part in key or not isinstance(node, DictConfig) or not has_entries(node):
            continue
        ours, others = (OmegaConf.to_container(n, resolve=False) for n in (cfg[part], node))
        shape = {"train": values.TRAIN_KEYS, "dataloader": set(_LOADERS)}.get(part, set(others))
        same_shape = set(others) <= shape and ("_target_" in others) == ("_target_" in ours)
        if same_shape and any(k not in ours or ours[k] != v for k, v in others.items()):
            yield (
                f"{key}: the run does not read it; did you mean {part}? (A variable of the "
                "config's own needs another name, or a _ before it)"
            )
