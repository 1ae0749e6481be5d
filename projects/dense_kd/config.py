"""Access to the configs of this project by name, like ``detectron2.model_zoo`` does for its own."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["get_config", "get_config_file"]


def _config_dirs(package_dir: Path) -> list[Path]:
    """Return the folders that may hold the configs, first the one that counts.

    Args:
        package_dir: The folder of the ``dense_kd`` package.
    """
    # An installed package carries its configs; a checkout (or an editable install, which runs from
    # the checkout) keeps them at its top.
    dirs = [package_dir / "configs"]
    if package_dir.parent.name == "projects":
        dirs.append(package_dir.parent.parent / "configs")
    return dirs


def config_folder() -> Path:
    """The folder of the configs of this project, in the installed package or else the checkout."""
    return next(f for f in _config_dirs(Path(__file__).resolve().parent) if f.is_dir())


def _close_matches(path: str, dirs: list[Path]) -> list[str]:
    """Return the names of configs that resemble ``path``, best first."""
    known = sorted({f.relative_to(d).as_posix() for d in dirs for f in d.rglob("*.py")})
    matches = difflib.get_close_matches(path, known, n=5, cutoff=0.5)
    # The right file in the wrong folder is a common slip that the whole path does not resemble.
    stem = Path(path).stem
    matches += [k for k in known if Path(k).stem == stem and k not in matches]
    return matches[:5]


def find_config(path: str) -> str | None:
    """The file that a path, or the name of a config of this project, stands for.

    Args:
        path: a file, or a name relative to ``configs/``; either without its ``.py``, too. A file
            comes before a name.

    Returns:
        Its path, or None if there is no such file and no such config.
    """
    folders = [Path(), *_config_dirs(Path(__file__).resolve().parent)]
    for folder in folders:
        for name in (path, f"{path}.py"):
            if (folder / name).is_file():
                return str(folder / name)
    return None


def get_config_file(path: str) -> str:
    """Return the path of a config file of this project.

    Args:
        path: Name of the config relative to ``configs/``, e.g. ``"quickstart/student.py"``.

    Returns:
        The absolute path of the file, inside the installed package or else in the checkout.

    Raises:
        FileNotFoundError: If there is no such config. The message says where it was looked for and
            which configs have similar names.
    """
    path = str(path)
    dirs = _config_dirs(Path(__file__).resolve().parent)
    # Joining an absolute path would silently leave the folder of the configs.
    if not Path(path).is_absolute():
        for folder in dirs:
            if (folder / path).is_file():
                return str(folder / path)

    message = [f"There is no config {path!r} in dense_kd (names are relative to configs/)."]
    message += ["Looked in:"]
    message += [f"  {d}" + ("" if d.is_dir() else " (does not exist)") for d in dirs]
    matches = _close_matches(path, dirs)
    if matches:
        message += ["Did you mean:"] + [f"  {m}" for m in matches]
    raise FileNotFoundError("\n".join(message))


def get_config(path: str) -> DictConfig:
    """Load a config of this project.

    Args:
        path: Name of the config relative to ``configs/``, e.g. ``"quickstart/student.py"``.

    Returns:
        The config (see ``detectron2.config.LazyConfig.load``).

    Raises:
        FileNotFoundError: If there is no such config.
    """
    from detectron2.config import LazyConfig  # not above: finding a file needs no torch

    return LazyConfig.load(get_config_file(path))
