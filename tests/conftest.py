"""Makes the helpers importable (``from helpers.builders import ...``), and keeps tests apart."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

LEVELS = {
    logger: (logger.level, logger.propagate)
    for logger in map(logging.getLogger, ("d2", "dense_kd", "detectron2", "fvcore"))
}


@pytest.fixture(autouse=True)
def levels_of_logging():
    """Runs of the script set them, and what a test sees of the log would depend on its place."""
    yield
    for logger, (level, propagate) in LEVELS.items():
        logger.setLevel(level)
        logger.propagate = propagate
