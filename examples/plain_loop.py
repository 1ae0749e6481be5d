#!/usr/bin/env python
"""Distil in a plain PyTorch loop: no config, no trainer, no hooks.

    python examples/plain_loop.py --data datasets/plain_loop --iterations 200

A Distiller is a module: it takes detectron2's batches and returns losses, those of the student and
those of the methods. Its state dict is the student's (and, under "kd.", what methods train).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper

from dense_kd import BCKD, PKD, Distiller, MethodSet, Teacher, get_config
from dense_kd.data import TrainLoader, detection_dataset, generate_shapes, register_shapes


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the losses of the last iteration."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("datasets/plain_loop"))
    parser.add_argument("--images", type=int, default=200, help="to generate (%(default)s)")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--teacher", help="its checkpoint; random weights otherwise, for a try")
    parser.add_argument("--output", type=Path, default=Path("output/plain_loop.pth"))
    args = parser.parse_args(argv)

    generate_shapes(args.data, "train", args.images)
    register_shapes("plain_loop_train", args.data, "train")
    loader = TrainLoader(
        detection_dataset("plain_loop_train"),
        mapper=DatasetMapper(is_train=True, augmentations=[], image_format="BGR"),
        total_batch_size=args.batch,
        seed=1,
    )
    model = Distiller(
        student=instantiate(get_config("quickstart/student.py").model),
        # weights=None says that the model has its weights already.
        teacher=Teacher(instantiate(get_config("quickstart/teacher.py").model), args.teacher),
        methods=MethodSet(bckd=BCKD(), pkd=PKD(weight=2.0)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: dict[str, torch.Tensor] = {}
    for iteration, batch in zip(range(args.iterations), loader):
        losses = model(batch)
        optimizer.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if iteration % 20 == 0:
            print(iteration, {name: round(value.item(), 3) for name, value in losses.items()})
    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.student.state_dict()}, args.output)
    print(f"{args.output} holds the student alone")
    return {name: value.item() for name, value in losses.items()}


if __name__ == "__main__":
    main()
