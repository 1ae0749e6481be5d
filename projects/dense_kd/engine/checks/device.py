"""The device, and how many processes share it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from ... import compat


def problems(device: str, num_processes: int, per_machine: int | None) -> Iterator[str]:
    """Why a model cannot run on ``train.device`` here.

    Args:
        device: of the config.
        num_processes: of the run.
        per_machine: those that will be started here; None: they run already.
    """
    try:
        parsed = torch.device(device)
    except RuntimeError:
        yield f"train.device={device!r}: no such device; expected cuda, cuda:1 or cpu"
        return
    if parsed.type == "cuda":
        yield from _cuda(parsed, num_processes, per_machine)
    elif parsed.type == "meta":
        yield "train.device=meta: nothing is computed there; expected cuda or cpu"
    elif num_processes > 1 and _over_nccl():
        yield (
            f"train.device={device} with {num_processes} processes on a machine with GPUs: the "
            "processes would talk over NCCL, which needs train.device=cuda; hide the GPUs with "
            "CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    else:
        try:
            torch.zeros(1, device=parsed)
        except Exception as error:  # of any backend
            reason = str(error).splitlines()[0]
            yield f"train.device={device}: cannot be used here ({reason}); expected cuda or cpu"


def _cuda(device: torch.device, num_processes: int, per_machine: int | None) -> Iterator[str]:
    if not torch.cuda.is_available():
        built = f"torch {compat.versions()['torch']}"
        why = (
            f"{built} is built for CUDA {torch.version.cuda}, but sees no GPU"
            if torch.version.cuda
            else f"{built} is built without CUDA"
        )
        yield (
            f"train.device={device}: there is no GPU here ({why}). Give train.device=cpu"
            + (f"; it trains in {num_processes} processes then" if num_processes > 1 else "")
        )
        return
    found = torch.cuda.device_count()
    if device.index is not None and device.index >= found:
        yield f"train.device={device}: there are {found} GPUs, the last is cuda:{found - 1}"
    if per_machine is not None and per_machine > found:
        yield f"--num-gpus {per_machine}: there are {found} GPUs on this machine"
    if device.index is not None and num_processes > 1:
        yield (
            f"train.device={device} would put {num_processes} processes on one GPU; give "
            "train.device=cuda, and each takes its own"
        )


def _over_nccl() -> bool:
    if dist.is_available() and dist.is_initialized():
        return "nccl" in dist.get_backend()
    return torch.cuda.is_available()
