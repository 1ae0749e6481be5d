"""A model with two losses that goes wrong where a batch says so, for tests of the trainer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dense_kd.engine import Trainer

FAULTS = {
    "gradient of NaN": "gradients",
    "infinite gradient": "gradients",
    "gradients whose norm overflows": "gradients",
    "student's loss of NaN": "losses",
    "distillation's loss of NaN, without a gradient": "losses",
    "infinite loss": "losses",
}
"""What a batch can ask for, and whether its gradients or its losses are not finite."""


class Toy(nn.Module):
    """Losses ``loss_box`` of the parameter ``box`` and ``kd_map`` of ``adapter``."""

    def __init__(self):
        super().__init__()
        self.box = nn.Parameter(torch.ones(3))
        self.adapter = nn.Parameter(torch.ones(2))
        self.register_buffer("statistics", torch.ones(2))

    def forward(self, batch: list[dict]) -> dict[str, Tensor]:
        fault = batch[0]["fault"]
        box, kd = self.box.sum(), self.adapter.square().sum()
        if fault == "gradient of NaN":
            box = box + (self.box * 0).sum().sqrt()  # 0, but its gradient is infinity x 0
        elif fault == "infinite gradient":
            box = box + (self.box - self.box.detach()).sum().sqrt()  # 0, with a vertical slope
        elif fault == "gradients whose norm overflows":
            box = box * 1e25
        elif fault == "student's loss of NaN":
            box = box * float("nan")
        elif fault == "distillation's loss of NaN, without a gradient":
            kd = kd + torch.tensor(float("nan"))
        elif fault == "infinite loss":
            box = box + torch.tensor(float("inf"))
        return {"loss_box": box, "kd_map": kd}


def toy_batch(fault: str | None = None, name: str = "fine") -> list[dict]:
    return [{"fault": fault, "file_name": f"{name}.jpg"}]


def toy_trainer(batches: list, lr: float = 0.1, **options) -> Trainer:
    model = Toy()
    return Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=lr), **options)
