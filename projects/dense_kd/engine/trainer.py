"""One optimisation step: accumulation, clipping, mixed precision, and all the state of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import compat
from .random_state import random_state, set_random_state

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Trainer(SimpleTrainer):
    """detectron2's SimpleTrainer with what its script lacks.

    Gradient accumulation and clipping, bf16 or fp16 autocast on any device, and a state dict that
    also holds the training buffers of the model (the loss normalisers), the gradient scaler, the
    place in the data and the random generators, so that a resumed run goes on where it stopped. It
    does so bit for bit with one process, ``dense_kd.data.TrainLoader`` and no loader workers;
    workers seed their augmentations anew, and of several processes only the first restores its
    generators.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        clip_grad: Mapping[str, float] | None = None,
        accumulate: int = 1,
        amp_dtype: str | None = None,
    ):
        """
        Args:
            model, data_loader, optimizer: see SimpleTrainer.
            clip_grad: ``max_norm`` and ``norm_type`` of ``torch.nn.utils.clip_grad_norm_`` over
                all parameters; None does not clip.
            accumulate: batches per iteration; their losses are averaged.
            amp_dtype: "float16", "bfloat16", or None for float32.
        """
        super().__init__(model, data_loader, optimizer)
        if accumulate < 1:
            raise ValueError(f"accumulate={accumulate}: expected at least 1 batch per iteration")
        if amp_dtype is not None and amp_dtype not in AMP_DTYPES:
            raise ValueError(f"amp_dtype={amp_dtype!r}: expected one of {tuple(AMP_DTYPES)}")
        self.clip_grad = None if clip_grad is None else dict(clip_grad)
        self.accumulate = accumulate
        self.amp_dtype = amp_dtype
        self.device = next(model.parameters()).device
        if amp_dtype == "float16" and self.device.type != "cuda":
            raise ValueError(
                "float16 needs a GPU to train (its gradients are scaled there); "
                "set train.amp.dtype=bfloat16"
            )
        self._loader_started = False
        self.grad_scaler = compat.grad_scaler(enabled=amp_dtype == "float16")

    def run_step(self) -> None:
        """``accumulate`` batches forward and backward, then one step of the optimizer."""
        if not self.model.training:
            raise RuntimeError("the model was changed to eval mode; training cannot go on")
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = {}
        data_time = 0.0
        for batch in range(self.accumulate):
            start = time.perf_counter()
            data = self._next_batch()
            data_time += time.perf_counter() - start
            last = batch + 1 == self.accumulate
            with self._gradient_sync(last):
                with self._autocast():
                    losses = self.model(data)
                loss = sum(losses.values()) / self.accumulate
                self.grad_scaler.scale(loss).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self.accumulate
        self._write_metrics(totals, data_time)
        if self.clip_grad is not None:
            self.grad_scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), **self.clip_grad)
            self.storage.put_scalar("grad_norm", norm.item())
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _next_batch(self) -> list[dict]:
        if self._loader_started:
            return next(self._data_loader_iter)
        # Starting a loader draws from torch's generator; a resumed run starts one more.
        self._loader_started = True
        with torch.random.fork_rng(devices=[]):
            return next(self._data_loader_iter)

    def _gradient_sync(self, last: bool) -> contextlib.AbstractContextManager:
        """Processes exchange gradients once per iteration, with the last batch."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=AMP_DTYPES[self.amp_dtype])

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["grad_scaler"] = self.grad_scaler.state_dict()
        state["training_buffers"] = {
            name: buffer.detach().cpu().clone() for name, buffer in self._training_buffers()
        }
        state["random"] = random_state()
        if hasattr(self.data_loader, "state_dict"):
            state["data_loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        # What follows is absent in the checkpoints of detectron2's own trainer.
        if "data_loader" in state_dict and hasattr(self.data_loader, "load_state_dict"):
            self.data_loader.load_state_dict(state_dict["data_loader"])
        if "random" in state_dict and comm.is_main_process():
            set_random_state(state_dict["random"])
        saved = state_dict.get("training_buffers", {})
        for name, buffer in self._training_buffers():
            if name in saved:
                buffer.copy_(saved[name])

    def _training_buffers(self) -> Iterable[tuple[str, Tensor]]:
        model = self.model
        if isinstance(model, DistributedDataParallel):
            model = model.module
        for prefix, module in model.named_modules():
            for name in getattr(type(module), "training_buffers", ()):
                yield f"{prefix}.{name}".lstrip("."), getattr(module, name)
