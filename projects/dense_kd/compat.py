"""Everything that depends on a version of detectron2 or torch; no other file looks at one."""

from __future__ import annotations

import contextlib
import gc
import logging
import platform
import signal
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import detectron2
import torch
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

try:  # the class detectron2 main has for FCOS; 0.5 has neither it nor FCOS
    from detectron2.modeling.box_regression import Box2BoxTransformLinear
except ImportError:
    Box2BoxTransformLinear = None

try:
    from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS
    from detectron2.modeling.meta_arch.fcos import FCOSHead as Detectron2FCOSHead
except ImportError:
    Detectron2FCOS = Detectron2FCOSHead = None

if TYPE_CHECKING:
    from detectron2.engine import HookBase, SimpleTrainer

HAS_DETECTRON2_FCOS = Detectron2FCOS is not None

logger = logging.getLogger("dense_kd")


def versions() -> dict[str, str]:
    """Of what a result depends on, to be recorded beside it."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
    }


def environment_report() -> str:
    """detectron2's report of the machine and of what is installed; it never ends a run.

    Where there is a GPU, it asks the compiled operators what they were compiled for, and what
    stands in for them in an installation without them may not know.
    """
    try:
        return collect_env_info()
    except Exception as error:  # of any operator or command that it asks
        return f"The environment is not described: {type(error).__name__}: {error}\n{versions()}"


def batch_images(images: list[torch.Tensor], backbone: Backbone) -> ImageList:
    """Pad images of (C, H, W) with zeros to one batch that ``backbone`` accepts.

    ``padding_constraints`` (square inputs of plain ViTs) exist only in detectron2 after 0.6.
    """
    constraints = getattr(backbone, "padding_constraints", None)
    if constraints:
        return ImageList.from_tensors(
            images, backbone.size_divisibility, padding_constraints=constraints
        )
    return ImageList.from_tensors(images, backbone.size_divisibility)


def event_storage() -> EventStorage | None:
    """The storage of the running trainer, or None outside of training."""
    try:  # `has_event_storage` is not in 0.5
        return get_event_storage()
    except AssertionError:
        return None


def begin_data_anew(trainer: SimpleTrainer) -> None:
    """Let a trainer ask its loader for a new iterator, as the loader was told its place.

    Main asks when it needs the first batch; 0.5 has one from the trainer's constructor on.
    """
    if "_data_loader_iter" in vars(trainer):
        trainer._data_loader_iter = iter(trainer.data_loader)
    else:
        trainer._data_loader_iter_obj = None


def after_backward(hooks: Iterable[HookBase]) -> None:
    """Call the method of that name of all hooks; in 0.5, those that have it."""
    for hook in hooks:
        getattr(hook, "after_backward", lambda: None)()


def put_scalar(name: str, value: float, *, smoothing_hint: bool = True) -> None:
    """Log ``value`` if a trainer is running."""
    storage = event_storage()
    if storage is not None:
        storage.put_scalar(name, value, smoothing_hint=smoothing_hint)


def has_fast_coco_evaluation() -> bool:
    """Whether detectron2's compiled COCO evaluation is there."""
    try:
        from detectron2 import _C

        return hasattr(_C, "COCOevalEvaluateImages")
    except ImportError:  # also what stands in for operators that were not compiled raises
        return False


def use_available_coco_evaluation(evaluator: Any) -> None:
    """Let a COCO evaluator compute in Python where the compiled evaluation is absent.

    Main does so by itself; 0.5 would fail at the end of its first evaluation.

    Args:
        evaluator: any evaluator.
    """
    if getattr(evaluator, "_use_fast_impl", False) and not has_fast_coco_evaluation():
        evaluator._use_fast_impl = False
        logger.info(
            "COCO's own evaluation is used: the fast one needs operators that this detectron2 was "
            "compiled without"
        )


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast off, so that losses are computed in the dtype of their inputs."""
    with torch.autocast(device_type=device.type, enabled=False):
        yield


def wait_for(device: torch.device) -> None:
    """Let the host wait for all that the device was asked for, or times are those of asking."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_instructions() -> list[str]:
    """The set of instructions that torch's kernels use here, as ["AVX2"]; [] where it does not tell
    (before 2.1)."""
    tell = getattr(getattr(torch.backends, "cpu", None), "get_cpu_capability", None)
    return [tell()] if tell else []


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself, so that autocast to it is faster.

    Torch tells by functions that are not public; without them (before 2.6) it is not known, and
    taken for no.
    """
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def _torch_is(major: int, minor: int) -> bool:
    """This version, or a later one."""
    version = torch.__version__.split(".")
    return (int(version[0]), int(version[1])) >= (major, minor)


def has_fused_steps() -> bool:
    """Whether optimizers of parameters on a CPU can do a step in one pass (2.4)."""
    return _torch_is(2, 4)


def check_exports_sizes() -> None:
    """Raise ValueError unless ``torch.export`` takes sizes that are multiples of others (2.5)."""
    if not _torch_is(2, 5):
        raise ValueError(f"torch_export needs torch 2.5 or newer, and this is {torch.__version__}")


def check_compiles_modules() -> None:
    """Raise ValueError unless torch compiles a module in its place (2.2)."""
    if not hasattr(nn.Module, "compile"):
        raise ValueError(
            f"compile=True needs torch 2.2 or newer, and this is {torch.__version__}; leave it out"
        )


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Run what ``torch.compile`` has been given as it was before, where torch knows how (2.6)."""
    if hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


def autocast_dtype(kind: str = "cuda") -> torch.dtype:
    """Of ``torch.autocast`` on a device of ``kind``, "cuda" or "cpu"."""
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4
        return torch.get_autocast_dtype(kind)
    return torch.get_autocast_gpu_dtype() if kind == "cuda" else torch.get_autocast_cpu_dtype()


def active_autocast(kind: str) -> torch.dtype | None:
    """The dtype that operations on a device of ``kind`` are cast to now; None without autocast."""
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4
        enabled = torch.is_autocast_enabled(kind)
    else:
        enabled = torch.is_autocast_enabled() if kind == "cuda" else torch.is_autocast_cpu_enabled()
    return autocast_dtype(kind) if enabled else None


def autocast_to(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager[Any]:
    """Autocast as :func:`active_autocast` found it; None is without."""
    if dtype is None:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def start_of_event(event: Any) -> int:
    """When an event of torch's profiler began; only to be compared with others."""
    return event.start_ns() if hasattr(event, "start_ns") else event.start_us()  # torch 2.3


def order_of_profile(device: torch.device) -> str:
    """By what the table of a profile is sorted: the time that operators took by themselves."""
    if device.type != "cuda":
        return "self_cpu_time_total"
    has_device = hasattr(torch.autograd.profiler_util.FunctionEvent, "self_device_time_total")
    return "self_device_time_total" if has_device else "self_cuda_time_total"  # torch 2.4


def grad_scaler(enabled: bool) -> Any:
    """A gradient scaler for fp16 on the GPU (``torch.amp.GradScaler`` needs torch 2.3)."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def total_norm(tensors: list[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """The norm of all ``tensors`` together, left on their device (scalar)."""
    if hasattr(nn.utils, "get_total_norm"):  # torch 2.6
        return nn.utils.get_total_norm(tensors, norm_type)
    norms = [torch.linalg.vector_norm(tensor, norm_type) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms), norm_type) if norms else torch.zeros(())


def copy_all(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each of ``sources`` to the one of ``targets``, of equal shapes, in few kernels."""
    if hasattr(torch, "_foreach_copy_") and targets:  # it wants one
        torch._foreach_copy_(targets, sources)
        return
    for target, source in zip(targets, sources):
        target.copy_(source)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm: torch.Tensor) -> None:
    """``torch.nn.utils.clip_grad_norm_`` of gradients whose :func:`total_norm` is known."""
    if hasattr(nn.utils, "clip_grads_with_norm_"):  # torch 2.6
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        return
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def make_local_group(per_machine: int) -> None:
    """Tell detectron2 which processes are of one machine; all call it together.

    Args:
        per_machine: as many ranks, one after the other, are of each machine.
    """
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(per_machine)
        return
    rank = torch.distributed.get_rank()
    for first in range(0, torch.distributed.get_world_size(), per_machine):
        group = torch.distributed.new_group(list(range(first, first + per_machine)))
        if first <= rank < first + per_machine:
            comm._LOCAL_PROCESS_GROUP = group


def add_note(error: BaseException, note: str) -> None:
    """Let an error say more; before Python 3.11, tracebacks do not show it."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


def is_of_an_exchange(error: BaseException) -> bool:
    """Whether processes could not exchange something: another one is gone, or has not come."""
    kinds = tuple(
        getattr(torch.distributed, name)
        for name in ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError")
        if hasattr(torch.distributed, name)  # the first one in torch 2.2
    )
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def end_with_parent() -> None:
    """Let this process get a SIGTERM when the one that started it dies (Linux)."""
    set_signal = getattr(torch.multiprocessing, "_prctl_pr_set_pdeathsig", None)
    if set_signal is not None:
        set_signal(signal.SIGTERM)


def forget_groups() -> None:
    """Let go of the process groups that detectron2 and unreachable models hold.

    Their threads end with them. Those of a group that outlives the interpreter abort the process
    now and then, after all its work is done.
    """
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group.cache_clear()
    gc.collect()
