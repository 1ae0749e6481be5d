"""One optimisation step: accumulation, clipping, mixed precision, and all the state of a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm
from fvcore.common.history_buffer import HistoryBuffer
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import compat
from ..checkpoint.errors import listed
from ..checkpoint.layouts.wrappers import unwrapped
from ..distiller import Distiller
from ..normalizers import MODES, IterationNormalizers
from ..one_pass import compiled_losses
from ..random_state import RandomState, kept_random_state
from .finite import NotFiniteError, StepNumbers, file_names
from .normalizing import RestoredBuffers, measure, warn_of_methods
from .replay.recording import StepRecorder
from .state.process_state import ProcessState, other_processes, restore
from .state.resuming import (
    check_same_optimizer,
    hyperparameters,
    keep_hyperparameters,
    save_final,
    what_is_lost,
)

_Context = Callable[[], contextlib.AbstractContextManager[Any]]

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

KEPT_SCALARS = 1000
"""Latest numbers of each scalar that the storage keeps: the longest window of detectron2's writers,
over which the time left is estimated. All of them are in ``metrics.json``."""

logger = logging.getLogger(__name__)


class Trainer(SimpleTrainer):
    """detectron2's SimpleTrainer with what its script lacks.

    Gradient accumulation and clipping, bf16 or fp16 autocast on any device, an end of the run
    (``FloatingPointError``, on all processes) before losses or gradients that are not finite reach
    the weights, and a state dict that also holds the training buffers of the model (the loss
    normalisers), the gradient scaler, the place in the data and the random generators, of all
    processes, so that a resumed run goes on where it stopped, with ``dense_kd.data.TrainLoader``
    bit for bit. What hooks draw after a step, for an evaluation say, is undone after them. A
    resumed run has the learning rates, weight decays and other hyperparameters of the optimizer it
    was built with, and says which differ from the checkpoint's.

    Attributes:
        wants_stop: whether this process was told to stop, asked in each iteration.
        stopping: whether any process was; all have the same answer after an iteration.
    """

    wants_stop: Callable[[], bool] = staticmethod(lambda: False)
    stopping = False

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        *,
        clip_grad: Mapping[str, float] | None = None,
        accumulate: int = 1,
        normalize: str = "batch",
        amp_dtype: str | None = None,
        compile_losses: bool = False,
        skip_bad_steps: int = 0,
    ):
        """
        Args:
            model, data_loader, optimizer: see SimpleTrainer.
            clip_grad: ``max_norm`` and ``norm_type`` of ``torch.nn.utils.clip_grad_norm_`` over
                all parameters; None does not clip.
            accumulate: batches per iteration; their losses are averaged.
            normalize: the losses of a batch are divided by its own counts (of positives, and so
                on), "batch", or by their means over all batches of the iteration and all processes,
                "iteration", so that they are those of one batch of all images. These are measured
                by a pass without gradients over each batch before, if there are several.
            amp_dtype: "float16", "bfloat16", or None for float32.
            compile_losses: let ``torch.compile`` make few kernels of the losses over all logits.
            skip_bad_steps: so many steps whose losses or gradients are not finite are left out,
                in all processes, before one ends the run.
        """
        super().__init__(model, data_loader, optimizer)
        if accumulate < 1:
            raise ValueError(f"accumulate={accumulate}: expected at least 1 batch per iteration")
        if skip_bad_steps < 0:
            raise ValueError(f"skip_bad_steps={skip_bad_steps}: expected 0 (none) or more")
        if amp_dtype is not None and amp_dtype not in AMP_DTYPES:
            raise ValueError(f"amp_dtype={amp_dtype!r}: expected one of {tuple(AMP_DTYPES)}")
        self.clip_grad = None if clip_grad is None else dict(clip_grad)
        if self.clip_grad is not None and not (
            {"max_norm"} <= set(self.clip_grad) <= {"max_norm", "norm_type"}
        ):
            raise ValueError(f"clip_grad={self.clip_grad}: expected max_norm and maybe norm_type")
        if normalize not in MODES:
            raise ValueError(f"normalize={normalize!r}: expected one of {MODES}")
        self.accumulate = accumulate
        self.normalize = normalize
        if normalize == "iteration":
            warn_of_methods(unwrapped(model))
        self.amp_dtype = amp_dtype
        self.compile_losses = compile_losses
        self.device = next(model.parameters()).device
        if amp_dtype == "float16" and self.device.type != "cuda":
            raise ValueError(
                "float16 needs a GPU to train (its gradients are scaled there); "
                "set train.amp.dtype=bfloat16"
            )
        self._loader_started = False
        self._random: RandomState | None = None  # while hooks run, what it was before them
        self._others: list[ProcessState] | None = None  # while all processes save together
        self._save_periods: list[int] = []
        self._in_step = False
        self.skip_bad_steps = skip_bad_steps
        self.skipped_steps = 0
        self.recorder = StepRecorder(model)
        self.grad_scaler = compat.grad_scaler(enabled=amp_dtype == "float16")

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` to ``max_iter - 1``.

        A run that has them all gets what a kill in its last save left out, ``model_final.pth``,
        and what its hooks do after training (the evaluation).
        """
        if start_iter > max_iter:
            raise ValueError(
                f"{start_iter} iterations are done already, max_iter={max_iter} has fewer; "
                "give a larger max_iter, or start another run"
            )
        try:
            super().train(start_iter, max_iter)
        except Exception as error:
            if self._in_step:
                self._keep_failure(error)
            raise

    def before_train(self) -> None:
        """Bound what the storage keeps, prepare a Distiller that nobody has prepared, and save what
        a kill in the last save left out, if no iteration is left."""
        # A million numbers of each scalar otherwise, of which nothing reads more than these.
        self.storage.histories().default_factory = functools.partial(HistoryBuffer, KEPT_SCALARS)
        model = unwrapped(self.model)
        if isinstance(model, Distiller) and not model.prepared:
            model.prepare_training()  # in the first step, it would be undone with that
        hooks = [hook for hook in self._hooks if isinstance(hook, PeriodicCheckpointer)]
        # As in detectron2's script, the first process alone may have it.
        self._save_periods = comm.all_gather([int(hook.period) for hook in hooks])[0]
        with self._unchanged_by_hooks():
            super().before_train()
        if self.start_iter == self.max_iter > 0:
            logger.info(f"All {self.max_iter} iterations are done already")
            self.iter = self.max_iter - 1  # as in the last step, for what is saved
            with self.saving_all_processes():
                for hook in hooks if comm.is_main_process() else ():
                    save_final(hook, self.iter)

    def after_backward(self) -> None:
        """The hooks, which may change the gradients of the iteration before they are clipped."""
        compat.after_backward(self._hooks)

    def after_step(self) -> None:
        """The hooks; all processes take part where a checkpoint is saved."""
        done = self.iter + 1
        saved = done == self.max_iter or any(done % period == 0 for period in self._save_periods)
        with self._unchanged_by_hooks():
            with self.saving_all_processes() if saved else contextlib.nullcontext():
                super().after_step()

    @property
    def done(self) -> int:
        """Iterations that are done, for hooks after a step, and in an evaluation that comes before
        the first step or after the last."""
        return min(self.storage.iter + 1, self.max_iter)

    @contextlib.contextmanager
    def saving_all_processes(self) -> Iterator[None]:
        """Meanwhile, :meth:`state_dict` holds the iteration that is done as the last one, and that
        of the first process what the others need, too.

        All processes must enter it at once, as they do where a ``PeriodicCheckpointer`` hook saves.
        """
        self._others = other_processes(self.model, self._random or RandomState.now())
        before, self.iter = self.iter, self.done - 1
        try:
            yield
        finally:
            self.iter = before
            self._others = None

    @contextlib.contextmanager
    def _unchanged_by_hooks(self) -> Iterator[None]:
        """A run that was stopped has not run the hooks that come after its checkpoint."""
        with kept_random_state() as self._random:
            try:
                yield
            finally:
                self._random = None

    def run_step(self) -> None:
        """``accumulate`` batches forward and backward, then one step of the optimizer."""
        if not self.model.training:
            raise RuntimeError("the model was changed to eval mode; training cannot go on")
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = {}
        images: list[str] = []
        self._data_time = 0.0
        self._in_step = True
        self.recorder.begin()
        batches: Iterable[list[dict[str, Any]]] = self._batches()
        normalized: _Context = contextlib.nullcontext
        if self.normalize == "iteration":
            batches = [*batches]
            normalized = self._measured(batches)
        for batch, data in enumerate(batches, start=1):
            images += file_names(data)
            with self._gradient_sync(last=batch == self.accumulate):
                with self._autocast(), compiled_losses(self.compile_losses), normalized():
                    losses = self.model(data)
                loss = sum(losses.values()) / self.accumulate
                self.grad_scaler.scale(loss).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self.accumulate
        self.grad_scaler.unscale_(self.optimizer)
        self.after_backward()
        norm = self._gradient_norm()
        step = StepNumbers(
            self.iter, unwrapped(self.model), totals, norm, images, self.wants_stop()
        )
        try:
            values, norm_value, self.stopping = step.check(self.grad_scaler)
        except NotFiniteError as error:
            if self._skips(error):
                return
            raise
        self._in_step = False
        self.recorder.end()
        # As numbers that are on the CPU already, or detectron2 would wait for each of them.
        self._write_metrics(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()},
            self._data_time,
        )
        if self.clip_grad is not None:
            compat.clip_gradients(self.model.parameters(), self.clip_grad["max_norm"], norm)
            self.storage.put_scalar("grad_norm", norm_value)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _skips(self, error: NotFiniteError) -> bool:
        """Whether the step is left out and the run goes on; all processes come here together."""
        self._in_step = False
        if error.is_of_this_process:
            self.recorder.save(self.iter, error, self.grad_scaler.get_scale())
        comm.synchronize()  # or one that fails at once would end those that save
        if self.skipped_steps >= self.skip_bad_steps:
            if self.skipped_steps:
                compat.add_note(error, f"{self.skipped_steps} steps were left out before")
            return False
        self.skipped_steps += 1
        self.recorder.undo()  # statistics and normalisers of the step
        self.grad_scaler.update()
        self.storage.put_scalar("skipped_steps", self.skipped_steps, smoothing_hint=False)
        of = f"{self.skipped_steps} of train.skip_bad_steps={self.skip_bad_steps}"
        logger.warning(f"The step of iteration {self.iter} is left out ({of}): {error}")
        return True

    def _keep_failure(self, error: Exception) -> None:
        """What else failed in a step: say in which images, and keep it for a replay."""
        self._in_step = False
        names = listed([name for batch in self.recorder.batches for name in file_names(batch)])
        note = f"in iteration {self.iter}, in or after the images: {', '.join(names) or 'none'}"
        compat.add_note(error, note)
        logger.error(f"{type(error).__name__} {note}")
        if self.recorder.batches and not compat.is_of_an_exchange(error):
            self.recorder.save(self.iter, error, self.grad_scaler.get_scale())

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        """Those of one iteration, each when it is asked for."""
        for _ in range(self.accumulate):
            start = time.perf_counter()
            try:
                data = self._next_batch()
            except StopIteration as error:
                raise RuntimeError(
                    f"the loader of the training has ended before iteration {self.iter} was "
                    "complete; expected one without an end, as dense_kd.data.TrainLoader"
                ) from error
            self._data_time += time.perf_counter() - start
            self.recorder.batch(data)
            yield data

    def _measured(self, batches: list[Any]) -> _Context:
        """In what each of the batches is to be run, in turn."""
        normalizers = IterationNormalizers(self.accumulate)
        if self.accumulate > 1:
            with self._autocast(), compiled_losses(self.compile_losses):
                measure(normalizers, unwrapped(self.model), batches)
        return RestoredBuffers([*self._training_buffers("iteration").values()], normalizers).using

    def _gradient_norm(self) -> Tensor:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm_type = 2.0 if self.clip_grad is None else self.clip_grad.get("norm_type", 2.0)
        return compat.total_norm(gradients, norm_type)

    def _next_batch(self) -> list[dict[str, Any]]:
        if self._loader_started:
            return next(self._data_loader_iter)
        # Starting torch's loaders draws a number; a resumed run starts one more.
        self._loader_started = True
        with kept_random_state():
            batches = self._data_loader_iter
        return next(batches)

    def _gradient_sync(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Processes exchange gradients once per iteration, with the last batch."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device, self.amp_dtype)

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs beside the model's parameters.

        Of several processes, it is all there within :meth:`saving_all_processes` only.
        """
        state = super().state_dict()
        state["optimizer_class"] = type(self.optimizer).__qualname__
        state["grad_scaler"] = self.grad_scaler.state_dict()
        state["training_buffers"] = {
            name: buffer.detach().cpu().clone() for name, buffer in self._training_buffers().items()
        }
        state["random"] = (self._random or RandomState.now()).plain()
        state["num_processes"] = comm.get_world_size()
        if self.skipped_steps:
            state["skipped_steps"] = self.skipped_steps
        if self._others is not None:
            state["other_processes"] = self._others
        if hasattr(self.data_loader, "state_dict"):
            state["data_loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, with the hyperparameters of this run."""
        check_same_optimizer(self.optimizer, state_dict)
        built = hyperparameters(self.optimizer)
        super().load_state_dict(state_dict)
        keep_hyperparameters(self.optimizer, built)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        # What follows is absent in the checkpoints of detectron2's own trainer.
        if "data_loader" in state_dict and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state_dict["data_loader"])
            compat.begin_data_anew(self)
            self._loader_started = False
        if "training_buffers" in state_dict:
            self._load_training_buffers(state_dict["training_buffers"])
        self.skipped_steps = state_dict.get("skipped_steps", 0)
        others = state_dict.get("other_processes", [])
        if comm.is_main_process():
            if "random" in state_dict:
                RandomState.of(state_dict["random"]).restore()
        elif len(others) == comm.get_world_size() - 1:
            restore(others[comm.get_rank() - 1], self.model)
        lost = [*what_is_lost(state_dict, self.data_loader, unwrapped(self.model))]
        if self.compile_losses:
            lost.append("train.compile_losses compiles for the sizes that come first in a process")
        if lost:
            logger.warning(
                "The run goes on, but not bit for bit as if it had not been stopped: "
                + "; ".join(lost)
            )

    def _load_training_buffers(self, saved: Mapping[str, Tensor]) -> None:
        # Checkpoints of distillations up to version 0.1 have the name of the attribute, too.
        saved = {name.removeprefix("student."): value for name, value in saved.items()}
        buffers = self._training_buffers()
        for name in buffers.keys() & saved.keys():
            buffers[name].copy_(saved[name])
        if buffers.keys() != saved.keys():
            logger.warning(
                f"The checkpoint has the training buffers {sorted(saved)}, the model "
                f"{sorted(buffers)}; those in one of them only are as in a new run"
            )

    def _training_buffers(self, moved_in: str | None = None) -> dict[str, Tensor]:
        """Of the whole model; ``moved_in="iteration"``: those that move once in an iteration."""
        return {
            f"{prefix}.{name}".lstrip(".").removeprefix("student."): getattr(module, name)
            for prefix, module in unwrapped(self.model).named_modules()
            if moved_in in (None, getattr(type(module), "training_buffers_move_in", "iteration"))
            for name in getattr(type(module), "training_buffers", ())
        }


def autocast(device: torch.device, amp_dtype: str | None) -> contextlib.AbstractContextManager[Any]:
    """What the passes of a training run in.

    Args:
        device: of the model.
        amp_dtype: one of :data:`AMP_DTYPES`; None is float32.
    """
    if amp_dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AMP_DTYPES[amp_dtype])


def amp_dtype_of(train: DictConfig) -> str | None:
    """One of :data:`AMP_DTYPES`, or None, as ``train`` of a config says."""
    return train.amp.get("dtype", "float16") if train.amp.enabled else None


def make_trainer(
    train: DictConfig, model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer
) -> Trainer:
    """The trainer of a run whose options are ``train``.

    Args:
        train: ``amp``, and maybe ``clip_grad``, ``accumulate`` and ``compile_losses``, of a config.
        model, loader, optimizer: see :class:`Trainer`.
    """
    return Trainer(
        model,
        loader,
        optimizer,
        clip_grad=train.get("clip_grad"),
        accumulate=train.get("accumulate", 1),
        normalize=train.get("normalize", "batch"),
        amp_dtype=amp_dtype_of(train),
        compile_losses=train.get("compile_losses", False),
        skip_bad_steps=train.get("skip_bad_steps", 0),
    )
