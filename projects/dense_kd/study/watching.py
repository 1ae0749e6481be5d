"""What a training saw, and what it cost, step by step; in a file, so that a kill loses nothing."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from ..checkpoint.layouts.wrappers import unwrapped
from ..distiller import Distiller
from ..json_files import read_json, write_json
from ..teacher import Teacher
from .errors import StudyError

__all__ = ["Watch", "batch_digest", "peak_memory", "read_watched", "tensors_digest"]

STEPS = "steps.txt"
START = "start.json"
_BACKBONE = "backbone.bottom_up."
_RUN_EVERY = 8  # iterations, of which one runs the teacher even if the cache has the batch


class Watch(HookBase):
    """Digests of the initial weights and of every batch, and seconds of every step.

    A step is what the trainer does in an iteration: loading, both passes, the optimizer. What
    hooks do after it (evaluations, checkpoints) is not in it. Neither are the digests. Where the
    teacher has a cache, one step in eight does without it, and the seconds are those of these.
    """

    def __init__(self, folder: Path):
        """
        Args:
            folder: of the run; a run that is gone on with has the files of the first part there.
        """
        self._folder = folder
        self._batches: list[Any] = []

    def before_train(self) -> None:
        """Note the weights, and begin to look at what the model gets."""
        model = unwrapped(self.trainer.model)
        student = model.student if isinstance(model, Distiller) else model
        first = self.trainer.start_iter == 0
        known = {} if first else read_json(self._folder / START)
        if first:
            state = student.state_dict()
            backbone = {k: v for k, v in state.items() if k.startswith(_BACKBONE)}
            known = {"all": tensors_digest(state), "backbone": tensors_digest(backbone)}
            (self._folder / STEPS).unlink(missing_ok=True)
        write_json(self._folder / START, {**known, "processes": known.get("processes", 0) + 1})
        self._handle = model.register_forward_pre_hook(self._note)
        self._stream = open(self._folder / STEPS, "a", encoding="ascii")
        if not first:
            self._stream.write("\n")  # a process that was killed may have left part of a line
        teacher = model.teacher if isinstance(model, Distiller) else None
        self.trainer.run_step = self._timed(self.trainer.run_step, teacher)

    def after_train(self) -> None:
        """Look no longer."""
        self._handle.remove()
        self._stream.close()
        del self.trainer.run_step

    def _note(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module.training:
            self._batches.append(args[0])

    def _timed(self, step: Callable[[], None], teacher: Teacher | None) -> Callable[[], None]:
        cache = None if teacher is None else teacher.cache

        def timed() -> None:
            counts = cache is None or self.trainer.iter % _RUN_EVERY == _RUN_EVERY // 2
            if teacher is not None and counts:
                teacher.cache = None
            begin, begin_cpu = time.perf_counter(), time.process_time()
            step()
            seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
            if teacher is not None:
                teacher.cache = cache
            digest = hashlib.sha256()
            for batch in self._batches:
                digest.update(batch_digest(batch))
            self._batches.clear()
            seen = digest.hexdigest()[:32]
            line = f"{self.trainer.iter} {seconds:.6f} {cpu:.6f} {seen} {int(counts)}\n"
            self._stream.write(line)
            self._stream.flush()

        return timed


def read_watched(folder: Path, iterations: int, period: int) -> dict[str, Any]:
    """What :class:`Watch` wrote, of all processes of a run.

    Args:
        folder: of the run.
        iterations: that it has had.
        period: iterations between measurements of diagnostics, 0 for none. Such a step does more
            than train, so it is not in the mean.

    Returns:
        {"initial": {"all", "backbone"}: digests, "seen": digest of all batches in their order,
        "seconds", "cpu_seconds": of all iterations, by the mean of those that count,
        "processes"}.

    Raises:
        StudyError: an iteration is not there.
    """
    start = read_json(folder / START)
    steps: dict[int, tuple[float, float, str, bool]] = {}
    for line in (folder / STEPS).read_text(encoding="ascii").splitlines():
        parts = line.split()
        if len(parts) == 5:
            steps[int(parts[0])] = (float(parts[1]), float(parts[2]), parts[3], parts[4] == "1")
    missing = [iteration for iteration in range(iterations) if iteration not in steps]
    if missing or "all" not in start:
        raise StudyError(
            f"{folder / STEPS} does not have iteration {missing[:1] or 'the start'}, so what this "
            "cell saw is not known; remove the folder, and the cell is trained again"
        )
    digest = hashlib.sha256("".join(steps[i][2] for i in range(iterations)).encode())
    whole = [i for i in range(iterations) if steps[i][3]] or [*steps]
    counted = [i for i in whole if not period or (i + 1) % period] or whole
    seconds, cpu_seconds = (
        round(math.fsum(each) / len(counted) * iterations, 3)
        for each in ([steps[i][0] for i in counted], [steps[i][1] for i in counted])
    )
    return {
        "initial": {"all": start["all"], "backbone": start["backbone"]},
        "seen": digest.hexdigest(),
        "processes": start["processes"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def batch_digest(batch: Iterable[Mapping[str, Any]]) -> bytes:
    """Of the pixels, boxes and classes that a model is given, in their order."""
    digest = hashlib.sha256()
    for image in batch:
        _add(digest, "image", image["image"])
        objects = image.get("instances")
        if objects is not None:
            _add(digest, "boxes", objects.gt_boxes.tensor)
            _add(digest, "classes", objects.gt_classes)
    return digest.digest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes, types and values, whatever is the order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _add(digest, name, tensors[name])
    return digest.hexdigest()


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU what torch had allocated at most, else what the process had resident.

    The kernel's own count for a process, ``ru_maxrss``, has in it what its parent had.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(peak)


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    tensor = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
