"""Makes the helpers importable (``from helpers.builders import ...``), and keeps tests apart."""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# The datasets of who runs the tests are none of theirs; it is read when dense_kd is imported.
os.environ["DETECTRON2_DATASETS"] = str(Path(__file__).parent / "no_datasets")

gc.disable()  # until all is collected

LEVELS = {
    logger: (logger.level, logger.propagate)
    for logger in map(logging.getLogger, ("d2", "dense_kd", "detectron2", "fvcore"))
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="of each test the first case only, and none that is marked slow",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Slow ones first: at the end, no process waits for another that has just begun a long one.
    items.sort(key=lambda item: not is_slow(item))
    if not config.getoption("--quick"):
        return
    chosen, left, seen = [], [], set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        (left if is_slow(item) or test in seen else chosen).append(item)
        seen.add(test)
    items[:] = chosen
    config.hook.pytest_deselected(items=left)


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: to look through it for garbage, time and again,
    takes a tenth of the time of all tests, and through configs that are kept another part."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def autograd_started_without_threads():
    """Autograd counts the devices in the first backward pass of a process, and starts a thread for
    each but the CPU. Once ``torch.compile`` has run, it finds some, and forks refuse to go on."""
    import torch  # not above, as below

    torch.ones((), requires_grad=True).backward()


@pytest.fixture(autouse=True, scope="session")
def configs_loaded_once_by_all_workers(tmp_path_factory: pytest.TempPathFactory):
    from helpers import configs  # not above: pytest's own process needs none of it

    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "configs"
        folder.mkdir(exist_ok=True)
        configs.share(folder)
    with configs.files_loaded_once():
        yield


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Leave loggers as they were: runs change them, and their handlers write to streams that are
    closed after the test."""
    for logger, (level, propagate) in LEVELS.items():
        if logger.level != level:  # to set it empties a cache of each logger there is
            logger.setLevel(level)
        logger.propagate = propagate
        if logger.handlers:
            from detectron2.utils.logger import setup_logger  # it is loaded: handlers are its

            logger.handlers.clear()
            setup_logger.cache_clear()
