"""A GPU that is pretended, so that code which nobody ran on one is known not to fail there.

Tensors hold their data on the CPU, say that they are on ``cuda:0``, and refuse what CUDA refuses
(``rules.py``). What would be a kernel, and what would let the host wait for the GPU, is counted,
with the line of the package that asked for it (``counts.py``)::

    with pretended_gpu() as gpu:
        model = build().to("cuda")
        with gpu.counting() as counts:
            sum(model(batch).values()).backward()
        print(counts.kernels, counts.stops, counts.report("stop"))

A GPU differs from it in speed, in rounding, in the order of sums, and in what only its own kernels
do (a number of kernels for one operation of torch, limits of shapes and memory).
"""

from .counts import Counts
from .gpu import GPU, pretended_gpu
from .tensor import Pretended

__all__ = ["GPU", "Counts", "Pretended", "pretended_gpu"]
