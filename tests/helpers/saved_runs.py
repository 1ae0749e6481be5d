"""Configs of small runs, and folders with what such a run has saved."""

from __future__ import annotations

import functools
import os
import pickle

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from dense_kd import Distiller, MethodSet, Teacher, get_config
from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.engine.state.stored_config import StoredConfig
from dense_kd.engine.state.stored_teachers import StoredTeachers, files_of_teachers
from helpers.builders import fcos_config


@functools.cache
def pickled_config(name: str) -> bytes:
    return pickle.dumps(get_config(name))


def config(folder, *overrides: str, model=None) -> DictConfig:
    student = pickle.loads(pickled_config("quickstart/student.py"))
    cfg = OmegaConf.create({}, flags={"allow_objects": True})
    for part in ("dataloader", "optimizer", "lr_multiplier", "train"):
        cfg[part] = student[part]
    cfg.model = fcos_config() if model is None else model
    cfg.train.output_dir = str(folder)
    for override in overrides:
        key, value = override.split("=")
        OmegaConf.update(cfg, key, value if "_target_" in key else yaml_value(value))
    return cfg


def yaml_value(text: str):
    return OmegaConf.create(f"value: {text}").value


def distillation(**methods) -> DictConfig:
    teacher = L(Teacher)(model=fcos_config(), weights="teacher.pth")
    return L(Distiller)(student=fcos_config(), teacher=teacher, methods=L(MethodSet)(**methods))


class Trainer:
    def __init__(self, iteration: int):
        self.iteration = iteration

    def state_dict(self) -> dict:
        return {"iteration": self.iteration}


def saved(cfg: DictConfig, done: int, name: str | None = None, *method_keys: str) -> None:
    """What a run of ``cfg`` has in its folder after ``done`` iterations."""
    model = torch.nn.Linear(1, 1)
    for key in method_keys:
        model.register_parameter(key, torch.nn.Parameter(torch.zeros(1)))
    if method_keys:
        holder = torch.nn.Module()
        holder.kd = torch.nn.Module()
        holder.kd.mgd = model
        model = holder
    name = f"model_{done - 1:07d}" if name is None else name
    os.makedirs(cfg.train.output_dir, exist_ok=True)
    checkpointer = AtomicCheckpointer(
        model,
        cfg.train.output_dir,
        trainer=Trainer(done - 1),
        config=StoredConfig(cfg),
        teachers=StoredTeachers(files_of_teachers(cfg)),
    )
    checkpointer.save(name, iteration=done - 1)


def names(folder) -> set[str]:
    return set(os.listdir(folder))
