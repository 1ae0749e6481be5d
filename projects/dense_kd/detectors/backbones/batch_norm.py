"""Batch norm: what each choice of a ``norm`` argument trains.

========================= ====================================== ===============
norm                      mean and variance                      factor and bias
========================= ====================================== ===============
"FrozenBN"                fixed                                  fixed
FrozenStatisticsBatchNorm fixed                                  trained
"BN"                      of the images of one process           trained
"SyncBN", "naiveSyncBN"   of the images of all processes         trained
========================= ====================================== ===============

The strings are detectron2's (``detectron2.layers.get_norm``), the class is ours. Any of them can be
the ``norm`` of detectron2's ResNet and FPN, of our ``MobileNetV2`` and of the heads, in a
LazyConfig too. "BN" and the synchronised ones normalise by the batch while they train, and by
running averages afterwards; in stages frozen by ``freeze_at`` all become "FrozenBN".

"SyncBN" is torch's. In a single process it is a "BN", on the CPU too; in several processes on the
CPU it raises a ValueError. There detectron2's "naiveSyncBN" runs. That one gives each process the
same weight, so it equals one process with all images only if all processes have batches of the same
shape, and its running variance lacks Bessel's correction.

The levels share the norms of a head, except for "BN" and "SyncBN" in detectron2's main branch:
there each level has its own statistics, and such a checkpoint has other keys than with 0.5.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class FrozenStatisticsBatchNorm(nn.BatchNorm2d):
    """Batch norm with fixed statistics whose factor and bias are trained.

    This is what mmdetection's ``norm_eval=True`` with ``requires_grad=True`` means. detectron2's
    "FrozenBN" fixes factor and bias, too, and its "BN" adapts the statistics. Usable as ``norm``
    of detectron2's ResNet, whose ``freeze_at`` makes it a FrozenBN in the frozen stages. Its
    state dict has the keys of FrozenBN.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features)
        self.num_batches_tracked = None  # nothing is tracked
        self.eval()

    def train(self, mode: bool = True) -> FrozenStatisticsBatchNorm:
        """Stays in eval mode, in which torch's batch norm uses the stored statistics."""
        return super().train(False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a "BN"
        # Up to version 1, torch adds that very key.
        super()._load_from_state_dict(state_dict, prefix, {**local_metadata, "version": 2}, *args)
