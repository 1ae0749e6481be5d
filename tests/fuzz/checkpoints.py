"""Files of weights, and of runs that go on: damaged bytes, foreign contents, pickles with code."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dense_kd import Predictor
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    load_strictly,
    read_content,
    read_weights,
)
from dense_kd.engine import Trainer
from helpers.builders import batch, tiny_fcos
from helpers.described import picture, small_run, write_checkpoint
from helpers.hostile import BOMBS, WRAPPINGS, code_pickles

from .mutations import damaged, damaged_tree
from .outcomes import REFUSED, SAME, VALUES, Case, Kind, Violation
from .running import MARK


def zipped(content: Any) -> bytes:
    """A file of torch.save, each part of which has a checksum."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy(content: Any) -> bytes:
    """A file of torch before 1.6, without checksums."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def pickled(content: Any) -> bytes:
    """A file as of detectron2's model zoo, of arrays and without checksums."""
    return pickle.dumps(_as_arrays(content), 2)


FORMATS: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "zip": (".pth", zipped),
    "legacy": (".pth", legacy),
    "pickle": (".pkl", pickled),
    "zip named .pyth": (".pyth", zipped),
    "zip named .pkl": (".pkl", zipped),
}


_LEGACY = legacy(None)[:8]


@dataclass
class Shared:
    """A trained model, and its checkpoint in each format."""

    model: nn.Module
    content: dict[str, Any]
    files: dict[str, bytes]
    trained: bytes
    """The checkpoint of a run that goes on."""
    described: bytes
    """One that says how its detector is built."""


def prepare(folder: Path) -> Shared:
    """Train for one step, and write it down."""
    model = tiny_fcos()
    content = {"model": copy.deepcopy(model.state_dict()), "iteration": 6, "class_names": [*"abcd"]}
    files = {name: write(content) for name, (_, write) in FORMATS.items()}
    run = _trainer(model)
    run.train(0, 1)
    saver = AtomicCheckpointer(model, str(folder), trainer=run)
    saver.save("model_0000000", iteration=0)
    trained = (folder / "model_0000000.pth").read_bytes()
    described = write_checkpoint(folder / "described.pth", small_run(width=4))
    return Shared(model, content, files, trained, Path(described).read_bytes())


def damaged_bytes(shared: Shared, case: Case) -> str:
    """Bytes of the file of a model, which is read in any way."""
    name = case.rng.choice([*FORMATS])
    mutation, data = damaged(shared.files[name], case.rng)
    read = case.rng.choice([*WAYS])
    case.mutation = f"{mutation} of a {name}"
    path = _written(case, f"weights{FORMATS[name][0]}", data)
    same = WAYS[read](shared, path)
    if same:
        return SAME
    if "zip" in name:
        raise Violation(f"{read} gives other content than was written, and says nothing")
    return VALUES


def damaged_content(shared: Shared, case: Case) -> str:
    """A whole file with something else in it than a checkpoint has."""
    name = case.rng.choice([*FORMATS])
    suffix, write = FORMATS[name]
    if case.rng.random() < 0.4:
        content = copy.deepcopy(shared.content)
        case.mutation = _change_tensors(content["model"], case.rng)
    else:
        case.mutation, content = damaged_tree(shared.content, case.rng)
    path = _written(case, f"weights{suffix}", write(content))
    model = copy.deepcopy(shared.model)
    load_strictly(model, path)
    given = content["model"]
    for key, value in model.state_dict().items():
        found = given.get(key)
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(found)
        if not isinstance(found, torch.Tensor) or not torch.equal(found.to(value.dtype), value):
            raise Violation(f"{key} is loaded as something else than the file has")
    return SAME if _equal(given, shared.content["model"]) else VALUES


def damaged_run(shared: Shared, case: Case) -> str:
    """The last checkpoint of a run that goes on for a step, or what points to it."""
    name = "model_0000000.pth"
    if case.rng.random() < 0.5:
        case.mutation, data = damaged(shared.trained, case.rng)
    else:
        content = read_content(str(_file(case, "whole.pth", shared.trained)))
        content = {key: value for key, value in content.items() if key != "model"}
        case.mutation, content = damaged_tree(_plain(content), case.rng)
        data = zipped({**content, "model": read_weights(str(case.folder / "whole.pth"))})
    path = _file(case, name, data)
    pointer = name.encode()
    if case.rng.random() < 0.2:
        mutation, pointer = damaged(pointer, case.rng)
        case.mutation = f"{mutation} of last_checkpoint"
        path.write_bytes(shared.trained)
    (case.folder / "last_checkpoint").write_bytes(pointer)
    model = copy.deepcopy(shared.model)
    run = _trainer(model)
    saver = AtomicCheckpointer(model, str(case.folder), trainer=run)
    rest = saver.resume_or_load("", resume=True)
    try:
        run.train(run.iter + 1, run.iter + 2)
    except FloatingPointError:  # documented, of the losses of this step
        return REFUSED
    return VALUES if rest else SAME


def damaged_description(shared: Shared, case: Case) -> str:
    """A student's checkpoint, from which a detector is built that looks at an image."""
    if case.rng.random() < 0.2:
        case.mutation, data = damaged(shared.described, case.rng)
    else:
        content = read_content(str(_file(case, "whole.pth", shared.described)))
        part, content["dense_kd"] = damaged_tree(content["dense_kd"], case.rng)
        case.mutation = part
        data = zipped(content)
    predictor = Predictor(_file(case, "student.pth", data), device="cpu")
    predictor(picture())
    return SAME if data == shared.described else VALUES


def hostile(shared: Shared, case: Case) -> str:
    """A pickle that would run code or take all memory, in each kind of file, also damaged."""
    pickles = {**code_pickles(MARK), **BOMBS}
    what = case.rng.choice([*pickles])
    case.mutation = what
    made = pickles[what]
    data = made if isinstance(made, bytes) else made()
    suffix, wrap = WRAPPINGS[case.rng.choice([*WRAPPINGS])]
    if not data.startswith((b"PK", _LEGACY)):  # it is wrapped already
        data = wrap(data)
    whole = case.rng.random() < 0.6
    path = _written(case, f"weights{suffix}", data if whole else damaged(data, case.rng)[1])
    WAYS[case.rng.choice([*WAYS])](shared, path)
    if whole:
        raise Violation("it is read as a checkpoint")
    return VALUES


def _strict(shared: Shared, path: str) -> bool:
    model = copy.deepcopy(shared.model)
    load_strictly(model, path)
    return _equal(model.state_dict(), shared.content["model"])


def _start(shared: Shared, path: str) -> bool:
    model = copy.deepcopy(shared.model)
    AtomicCheckpointer(model).load(path)
    return _equal(model.state_dict(), shared.content["model"])


def _content(shared: Shared, path: str) -> bool:
    found = read_content(path)
    return _equal(_as_arrays(found), _as_arrays(shared.content))


WAYS: dict[str, Callable[[Shared, str], bool]] = {
    "load_strictly": _strict,
    "train.init_checkpoint": _start,
    "read_content": _content,
}
"""{how a file is read: whether what it gives is what was written}."""


def _change_tensors(state: dict[str, Any], rng: Any) -> str:
    key, other = rng.sample(sorted(state), 2)
    value = state[key]
    changes: dict[str, Callable[[], Any]] = {
        "swap": lambda: _swapped(state, key, other),
        "not finite": lambda: torch.full_like(value.float(), rng.choice((math.nan, math.inf))),
        "another type": lambda: value.to(rng.choice((torch.int8, torch.half, torch.complex64))),
        "another shape": lambda: value.reshape(-1)[: rng.randrange(value.numel() + 1)],
        "no dimensions": lambda: value.float().sum(),
        "an array": lambda: value.numpy(),
        "a parameter": lambda: nn.Parameter(value.float()),
        "sparse": lambda: value.float().to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        "an array of objects": lambda: np.array([None, 1], dtype=object),
        "a module": lambda: nn.Linear(1, 1),
        "a meta tensor": lambda: torch.empty(3, device="meta"),
    }
    what = rng.choice([*changes])
    state[key] = changes[what]()
    return what


def _swapped(state: dict[str, Any], key: str, other: str) -> Any:
    value, state[other] = state[other], state[key]
    return value


def _trainer(model: nn.Module) -> Trainer:
    return Trainer(model, [batch()] * 2, torch.optim.AdamW(model.parameters(), lr=1e-3))


def _plain(content: Any) -> Any:
    """The same in dicts and lists, so that all of it can be damaged."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return content


def _as_arrays(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _as_arrays(value) for key, value in content.items()}
    if isinstance(content, torch.Tensor) and content.layout == torch.strided:
        plain = not content.is_quantized and content.device.type == "cpu"
        return content.detach().numpy() if plain else content
    return content


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(_equal(found[key], expected[key]) for key in expected)
        )
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return type(found) is type(expected) and np.array_equal(found, expected)
    return bool(found == expected)


def _file(case: Case, name: str, data: bytes) -> Path:
    path = case.folder / name
    path.write_bytes(data)
    return path


def _written(case: Case, name: str, data: bytes) -> str:
    return str(_file(case, name, data))


KINDS = {
    "checkpoint, damaged bytes": Kind(damaged_bytes, prepare, share=5),
    "checkpoint, other content": Kind(damaged_content, prepare, share=3),
    "checkpoint of a run": Kind(damaged_run, prepare, share=3),
    "checkpoint with a description": Kind(damaged_description, prepare, share=2),
    "checkpoint with a hostile pickle": Kind(hostile, prepare, share=3),
}
