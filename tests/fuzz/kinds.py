"""All kinds of files."""

from __future__ import annotations

from . import checkpoints, configs, datasets, images, runs

KINDS = {**checkpoints.KINDS, **datasets.KINDS, **images.KINDS, **configs.KINDS, **runs.KINDS}
