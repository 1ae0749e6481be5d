"""What the server of :mod:`.killed_legs` has imported and loaded, so that no leg does it again."""

from __future__ import annotations

import hydra  # noqa: F401  by which overrides are parsed
import torch.utils.tensorboard  # noqa: F401  which writes events

from dense_kd.visualize import maps  # noqa: F401  which draws

from . import checked_runs
from . import killed_legs as killed_legs

checked_runs.load()
