"""Configs: entries of a wrong kind, names that nothing reads, overrides that are no sense."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, ListConfig

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.data import register_annotations
from dense_kd.engine.building import build_model, build_optimizer
from dense_kd.engine.checks import check_run
from dense_kd.engine.checks.config_file import load_config
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.engine.evaluation import Evaluation
from dense_kd.engine.loaders import load_training
from dense_kd.engine.trainer import make_trainer
from helpers.described import small_run
from helpers.own_datasets import scenes, write_coco

from .mutations import JUNK, damaged, damaged_text
from .outcomes import SAME, VALUES, Case, Kind, Violation

WORDS = (
    *("null", "true", "-1", "0", "1", "2.5", "1e9", "nan", "inf", "[]", "{}", "[1,2]", "{a:1}"),
    *("''", "x", "a b", "'\"", "${train.max_iter}", "${nothing}", "${", "???", "1_000", "0x10"),
    *("detectron2.layers.Conv2d", "os.mkdir", "é", "[[[", "a" * 3000, "9" * 400, "-0", "1e-320"),
)
"""Values of overrides."""


@dataclass
class Shared:
    """A distillation on four images."""

    cfg: DictConfig
    text: str
    """The same as a YAML file."""


def prepare(folder: Path) -> Shared:
    """A run that could start."""
    file = write_coco(folder / "a.json", scenes(4), folder / "images")
    register_annotations("fuzz_shapes", file, folder / "images")
    cfg = small_run(width=4)
    cfg.model.num_classes = 2
    teacher = instantiate(copy.deepcopy(cfg.model))
    torch.save(teacher.state_dict(), folder / "teacher.pth")
    cfg.model = L(Distiller)(
        student=cfg.model,
        teacher=L(Teacher)(model=cfg.model, weights=str(folder / "teacher.pth")),
        methods=L(MethodSet)(bckd=L(BCKD)()),
    )
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = "fuzz_shapes"
    cfg.dataloader.train.total_batch_size = 2
    cfg.train.max_iter, cfg.train.output_dir = 3, "run"
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    _start(copy.deepcopy(cfg))  # it could
    return Shared(cfg, (folder / "config.yaml").read_text())


def damaged_entries(shared: Shared, case: Case) -> str:
    """An entry that has another value, is missing, or should not be there."""
    rng, cfg = case.rng, copy.deepcopy(shared.cfg)
    path = rng.choice([*_paths(cfg)])
    node = cfg
    for key in path[:-1]:
        node = node._get_node(key)
    what = rng.choice(("replace", "replace", "replace", "remove", "add"))
    case.mutation = f"{what} {'.'.join(map(str, path))}"
    case.names = tuple(str(key) for key in path if isinstance(key, str) and key != "_target_")
    case.names += (path[0], "teacher.pth")
    value = _value(rng)
    added = f"{path[-1]}_of"
    try:
        if what == "replace":
            node[path[-1]] = value
        elif what == "remove":
            del node[path[-1]]
        elif isinstance(node, DictConfig):
            node[added] = value
            case.names = (added,)
        else:
            node.append(value)
    except Exception:  # omegaconf does not take this value
        return SAME
    _start(cfg)
    if what == "add" and path[0] == "train" and path[1:] and isinstance(node, DictConfig):
        raise Violation(f"{'.'.join(path[:-1])}.{added}={value!r} is accepted and read by nothing")
    return VALUES


def overrides(shared: Shared, case: Case) -> str:
    """Words of a command line."""
    rng, cfg = case.rng, copy.deepcopy(shared.cfg)
    path = ".".join(map(str, rng.choice([*_paths(cfg)])))
    word = f"{path}={rng.choice(WORDS)}"
    what = rng.random()
    if what < 0.2:
        word = f"{path}x=1" if rng.random() < 0.5 else f"x{path}=1"
    elif what < 0.4:
        word = damaged_text(word, rng)[1]
    elif what < 0.5:
        word = rng.choice(("~", "+", "++", "--", "@", "=", "\n", ".")) + word
    case.mutation = f"an override {word[:80]}"
    case.names = (word, *path.split("."), "teacher.pth")
    _start(apply_overrides(cfg, [word]))
    return VALUES


def damaged_yaml(shared: Shared, case: Case) -> str:
    """The file that a run has written of its config; as any config, it may name what is called."""
    if case.rng.random() < 0.5:
        case.mutation, text = damaged_text(shared.text, case.rng)
        data = text.encode(errors="surrogatepass")
    else:
        case.mutation, data = damaged(shared.text.encode(), case.rng)
    file = case.folder / "config.yaml"
    file.write_bytes(data)
    cfg = load_config(str(file))
    case.names = ("",)  # from here on it is an entry that is named
    _start(cfg)
    return SAME if cfg == shared.cfg else VALUES


def _start(cfg: DictConfig) -> None:
    """All that a run does before its first step, and the first batch."""
    check_run(cfg, "train")
    model = build_model(cfg)
    if isinstance(model, Distiller):
        model.load_teacher()
    optimizer = build_optimizer(cfg, model)
    loader = load_training(cfg).loader
    if cfg.dataloader.get("evaluator") is not None:
        Evaluation(cfg, "train")
    trainer = make_trainer(cfg.train, model, loader, optimizer)
    next(iter(trainer.data_loader))


def _value(rng: Any) -> Any:
    return copy.deepcopy(rng.choice((*JUNK, "${nothing}", "os.mkdir", "detectron2.layers.Conv2d")))


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
        for key in node:
            yield from _paths(node._get_node(key), (*path, key))
    elif isinstance(node, ListConfig) and not node._is_none() and not node._is_interpolation():
        for index in range(len(node)):
            yield from _paths(node._get_node(index), (*path, index))


KINDS = {
    "config, other entries": Kind(damaged_entries, prepare, share=3),
    "config, overrides": Kind(overrides, prepare, share=3),
    "config.yaml": Kind(damaged_yaml, prepare),
}
