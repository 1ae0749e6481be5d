"""Weights by gradient share on a GPU: what they cost in ordinary iterations, and in others."""

from __future__ import annotations

from detectron2.utils.events import EventStorage

from dense_kd import PKD
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from helpers import device_costs
from helpers.builders import tiny_fcos
from helpers.feature_cases import distill


def test_the_host_waits_in_measured_iterations_alone():
    with pretended_gpu() as gpu:
        costs = {}
        for name, balance in (("without", None), ("with", {"probe": 1, "period": 2})):
            model = distill(
                tiny_fcos(),
                tiny_fcos(seed=1),
                pkd=PKD(),
                **({"balance": balance} if balance else {}),
            ).to("cuda")
            for iteration in (0, 1, 2):
                with EventStorage(iteration):
                    costs[name, iteration] = device_costs.of_step(gpu, model)
        factors = [b for n, b in model.named_buffers() if "balance" in n]
        assert len(factors) == 2 and all(isinstance(b, Pretended) for b in factors)
        ordinary, plain = costs["with", 1], costs["without", 1]
        assert (ordinary.stops, ordinary.uploads) == (plain.stops, plain.uploads)
        assert ordinary.kernels <= plain.kernels + 4  # the factor, and its part in backward
        for measured in (0, 2):
            assert costs["with", measured].stops > plain.stops
