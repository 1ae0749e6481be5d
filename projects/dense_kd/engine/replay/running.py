"""A kept step, run again in the state that it began with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import Tensor, nn

from ... import compat, methods
from ...checkpoint import CheckpointError, read_content
from ...checkpoint.errors import listed
from ...checkpoint.layouts.wrappers import clean_state
from ...description import build_described
from ...description.allowed import name_of, names_of
from ...description.building import TARGET
from ...distiller import Distiller
from ...feature_teacher import FeatureTeacher
from ...random_state import RandomState, kept_random_state
from ...teacher import Teacher
from ..building import arranged, build, quantized
from ..checks import load_config
from ..finite import file_names
from ..ranks.errors import error_text
from ..trainer import amp_dtype_of, make_trainer
from .batches import from_plain
from .recording import FORMAT
from .teachers import DISTILLERS, put_files

__all__ = ["Replayed", "replay"]

_MORE = [Distiller, Teacher, FeatureTeacher, *(getattr(methods, name) for name in methods.__all__)]


@dataclass
class Replayed:
    """What came of it.

    Attributes:
        same: whether the step failed with an error of the kind that it had in the run.
        lines: for people.
    """

    same: bool
    lines: list[str]


def replay(
    path: str, *, config: str | None = None, teacher: str | None = None, device: str | None = None
) -> Replayed:
    """Run the step of a file again.

    Nothing that the file names is imported, and no file can run code.

    Args:
        path: that a run has written into the folder ``replay`` of its ``output_dir``.
        config: of the run, where the file cannot say how to build the model.
        teacher: the file of the teacher, if it is not where it was.
        device: None is that of the run, or the CPU without one.

    Raises:
        CheckpointError: a file cannot be read, is another one, or does not fit.
        RunError: there is no such config.
    """
    content = read_content(path)
    found = content.get("replay") if isinstance(content, Mapping) else None
    if found is None:
        raise CheckpointError(
            f"{path} is no step of a run; expected a file of the folder replay in its output_dir"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"{path} is a step of another version of dense_kd (format {found}; this one reads "
            f"{FORMAT}); run it with the version of its run"
        )
    wanted = device or str(content["device"])
    kind = "cpu" if wanted.startswith("cuda") and not torch.cuda.is_available() else wanted
    model = _model(content, path, config, teacher)
    train = OmegaConf.create(content["train"])
    if amp_dtype_of(train) == "float16" and not kind.startswith("cuda"):
        raise CheckpointError(f"{path} is a step in float16, which needs a GPU")
    model = quantized(arranged(model.to(kind), train), train).train()
    _fill(model, content, path)
    lines = [
        f"iteration {content['iteration']} of process {content['rank']} of "
        f"{content['num_processes']}, on {content['device']}; here on {kind}",
        *_differences(content["versions"]),
    ]
    if content["num_processes"] > 1:
        lines.append("what processes exchange in a step (normalisers) is that of this one alone")
    names = [name for batch in content["batches"] for name in file_names(batch)]
    lines += ["images: " + (", ".join(listed(names)) or "none had been loaded")]
    lines += ["in the run:", *_indented(content["error"])]
    said, first = _step(model, train, content)
    lines += ["here:", *_indented(said or "all losses and gradients are finite")]
    if first:
        lines.append(f"first output that is not finite: {first}")
    same = bool(said) and said.partition(":")[0] == content["error"].partition(":")[0]
    lines.append("the step fails as it did" if same else "the step does not fail as it did")
    return Replayed(same, lines)


def _model(
    content: Mapping[str, Any], path: str, config: str | None, teacher: str | None
) -> nn.Module:
    described, files = content["description"], content["teachers"]
    if teacher is not None and DISTILLERS not in files:
        raise CheckpointError(
            f"{path} is a step without a teacher that has a file, so {teacher} would not be read; "
            "leave it out (--teacher)"
        )
    if config is not None:
        cfg = load_config(config).model
        put_files(cfg, files, teacher)
        model: nn.Module = build(cfg, "model")
        return model
    if described is None:
        raise CheckpointError(
            f"{path} does not say how to build the model ({content['incomplete']}); give the "
            "config of its run (--config)"
        )
    described = _quiet(described)
    put_files(described, files, teacher)
    try:
        return build_described(described, f"{path}: model", names_of(_MORE))
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Or give the config of its run (--config)") from error


def _quiet(described: Any) -> Any:
    """A copy, whose teachers keep no passes and compile nothing."""
    if isinstance(described, list):
        return [_quiet(each) for each in described]
    if not isinstance(described, dict):
        return described
    copied = {key: _quiet(each) for key, each in described.items()}
    if copied.get(TARGET) == name_of(Teacher):
        copied = {**copied, "cache": None, "compile": False}
        for option in [key for key in copied if key.startswith("cache_")]:
            del copied[option]
    return copied


def _fill(model: nn.Module, content: Mapping[str, Any], path: str) -> None:
    """Parameters and buffers as they were when the step began."""
    ours: dict[str, Tensor] = {**dict(model.named_buffers()), **clean_state(model)}
    saved = {**content["model"], **content["buffers"]}
    wrong = [k for k in saved if k not in ours or ours[k].shape != saved[k].shape]
    wrong += [k for k in clean_state(model) if k not in saved]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the model: {', '.join(listed(sorted(wrong)))}; give the config "
            "of its run"
        )
    with torch.no_grad():
        for key, value in saved.items():
            ours[key].copy_(value)


def _differences(versions: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {versions[name]} in the run, {here} here"
        for name, here in compat.versions().items()
        if versions.get(name) != str(here)
    ]


def _step(model: nn.Module, train: Any, content: Mapping[str, Any]) -> tuple[str, str]:
    """The error ("" if there is none), and the first output that is not finite."""

    def batches() -> Iterator[Any]:
        for batch, state in zip(content["batches"], content["random"]):
            RandomState.of(state).restore()
            yield from_plain(batch)

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainer = make_trainer(train, model, batches(), torch.optim.SGD(parameters, lr=0.0))
    scaler = trainer.grad_scaler.state_dict()
    if scaler:
        trainer.grad_scaler.load_state_dict({**scaler, "scale": float(content["scale"])})
    trainer.iter = int(content["iteration"])
    found: list[str] = []
    with kept_random_state(), EventStorage(trainer.iter) as trainer.storage:
        with _watched(model, found):
            try:
                trainer.run_step()
            except Exception as error:  # of whatever the step runs into
                if isinstance(error, StopIteration):
                    raise CheckpointError("the step failed before its batch was there") from None
                return error_text(error), "".join(found[:1])
    return "", "".join(found[:1])


@contextlib.contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Meanwhile, ``found`` gets the modules whose outputs are not finite, as they come."""
    named = dict(model.named_modules())
    for place, each in model.teachers.items() if isinstance(model, Distiller) else ():
        teacher = each.model.named_modules()
        named.update({f"{place}.{name}".rstrip("."): module for name, module in teacher})

    def watch(name: str, module: nn.Module) -> Any:
        def look(_: nn.Module, inputs: Any, output: Any) -> None:
            if found or _finite(output):
                return
            said = f"{_described(name, module)}; its inputs are "
            if _finite(inputs):
                found.append(f"{said}finite")
            else:  # as those of a norm within a convolution
                parent = name.rpartition(".")[0]
                around = _described(parent, named.get(parent, model))
                found.append(f"{said}not finite: they are made in {around}")

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in named.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _described(name: str, module: nn.Module) -> str:
    own = [*module.parameters(), *module.buffers()]
    return (
        f"{name or 'the model'} ({type(module).__name__}, whose parameters and buffers are "
        f"{'' if _finite(own) else 'not '}finite)"
    )


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_finite(getattr(value, each.name)) for each in dataclasses.fields(value))
    return True


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
