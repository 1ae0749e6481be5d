#!/usr/bin/env python3
"""Install detectron2 into the interpreter that runs this script.

Detectron2 is on no package registry under its own name, and its releases have no builds for today's
torch. The first of these ways that works is taken:

1. keep the detectron2 that is already importable (0.5 or newer);
2. ``main``: build the repository's main branch at a pinned commit;
3. ``registry``: take the source archive of 0.5 that a package registry holds as ``detectron2-cdo``,
   verify its hash, fix it for today's torch, numpy and Pillow, and install it without compiled
   operators (which the detectors of this project do not use).

Usage, with torch already installed: ``.venv/bin/python tools/install_detectron2.py``.
Only the standard library is used.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Callable

from detectron2_fixes import SETUPTOOLS, InstallError, apply_fixes

OLDEST_VERSION = (0, 5)

REPOSITORY = "https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
REACH_TIMEOUT = 20  # seconds

ARCHIVE = "detectron2-cdo==0.5"
ARCHIVE_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"

# Distributions that own the files of the package "detectron2".
DISTRIBUTIONS = ("detectron2", "detectron2-cdo")

PROBE = """\
import detectron2, detectron2.data, detectron2.model_zoo, detectron2.modeling
print("detectron2", detectron2.__version__, detectron2.__file__)
"""


def say(message: str) -> None:
    """Print a line of progress at once, also when the output is a file."""
    print(f"install_detectron2: {message}", flush=True)


def last_line(text: str | None) -> str:
    """Return the last line of ``text`` that is not empty, where tools put what went wrong."""
    lines = (text or "").strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def run_pip(*args: str) -> None:
    """Run pip of this interpreter.

    Raises:
        InstallError: If pip fails. Its own output is shown as it comes.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if code != 0:
        raise InstallError(f"'pip {args[0]}' failed with exit code {code}, see its output above")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new process of this interpreter.

    A new process because this one would not see what pip installs meanwhile, and an empty working
    directory because a folder named ``detectron2`` in the current one would be imported instead.
    """
    with tempfile.TemporaryDirectory() as cwd:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )


def probe_detectron2() -> tuple[bool, str]:
    """Check whether a usable detectron2 is importable.

    Returns:
        Whether it is, and a sentence about what was found.
    """
    result = run_python(PROBE)
    if result.returncode != 0:
        return False, f"detectron2 cannot be imported ({last_line(result.stderr)})"
    # Only the last line is ours: importing torch and others may print as well.
    found = re.match(r"detectron2 ((\d+)\.(\d+)\S*) (.*)", last_line(result.stdout))
    if not found:
        return False, f"detectron2 has an unknown version ({last_line(result.stdout)})"
    version, location = found[1], found[4]
    if (int(found[2]), int(found[3])) < OLDEST_VERSION:
        return False, f"detectron2 {version} is too old ({location})"
    return True, f"detectron2 {version} is importable ({location})"


def require_torch() -> None:
    """Check for torch, which building detectron2 imports.

    Raises:
        InstallError: If torch cannot be imported.
    """
    result = run_python("import torch, torchvision")
    if result.returncode != 0:
        raise InstallError(
            f"torch and torchvision are needed first ({last_line(result.stderr)}). Install them "
            f"with: {sys.executable} -m pip install torch==2.12.1 torchvision==0.27.1"
        )


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def require_build_tools() -> None:
    """Install the setuptools and wheel that building without isolation takes from here."""
    setuptools = installed_version("setuptools")
    release = tuple(int(n) for n in re.findall(r"\d+", setuptools or "0")[:2])
    if not (62, 3) <= release < (81,) or installed_version("wheel") is None:
        say(f"installing {SETUPTOOLS} and wheel, which building detectron2 needs")
        run_pip("install", "-q", "--progress-bar", "off", SETUPTOOLS, "wheel")


def verify_sha256(path: Path, expected: str) -> None:
    """Check the hash of a file.

    Raises:
        InstallError: If it is another one.
    """
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise InstallError(f"{path.name} has sha256 {actual}, but {expected} was expected")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a source archive.

    Returns:
        The only folder at its top.
    """
    with tarfile.open(archive) as tar:
        # Older patch releases of Python have no filters.
        if hasattr(tarfile, "data_filter"):
            tar.extractall(target, filter="data")
        else:
            tar.extractall(target)
    folders = [path for path in target.iterdir() if path.is_dir()]
    if len(folders) != 1:
        raise InstallError(f"{archive.name} has {len(folders)} folders at its top instead of one")
    return folders[0]


def require_repository() -> None:
    """Check that the repository can be reached, so that an unreachable one costs seconds only.

    Raises:
        InstallError: If it cannot.
    """
    if shutil.which("git") is None:
        raise InstallError("git is not installed")
    # Nobody may be there to answer a question for credentials.
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    # A file instead of a pipe: a helper process of git may outlive git and keep a pipe open, and
    # then the timeout would have no effect.
    with tempfile.TemporaryFile("w+") as stderr:
        try:
            result = subprocess.run(
                ["git", "ls-remote", REPOSITORY, "HEAD"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=REACH_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise InstallError(f"no answer from {REPOSITORY} in {REACH_TIMEOUT} seconds") from None
        stderr.seek(0)
        reason = last_line(stderr.read())
    if result.returncode != 0:
        raise InstallError(f"{REPOSITORY} cannot be reached ({reason})")


def build_main(work_dir: Path) -> None:
    """Build a wheel of main from its repository into ``work_dir``."""
    require_repository()
    say("building main (compiles its operators, takes minutes)")
    source = f"git+{REPOSITORY}@{COMMIT}"
    wheel = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(work_dir))
    run_pip(*wheel, source)


def build_registry(work_dir: Path) -> None:
    """Build a wheel of the fixed archive from the registry into ``work_dir``."""
    say(f"downloading {ARCHIVE}")
    requirements = work_dir / "requirements.txt"
    requirements.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    download_dir = work_dir / "download"
    # With the hash, pip refuses another archive before it runs any code of it.
    run_pip(
        *("download", "-q", "--progress-bar", "off", "--no-deps", "--no-build-isolation"),
        *("--no-binary", ":all:", "--require-hashes", "-r", str(requirements)),
        *("-d", str(download_dir)),
    )
    archives = list(download_dir.iterdir())
    if len(archives) != 1:
        raise InstallError(f"pip downloaded {len(archives)} files instead of one archive")
    verify_sha256(archives[0], ARCHIVE_SHA256)

    source_dir = unpack(archives[0], work_dir / "source")
    say("fixing it for today's torch, numpy and Pillow, without compiled operators")
    apply_fixes(source_dir)
    wheel = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(work_dir))
    run_pip(*wheel, str(source_dir))


WAYS: dict[str, Callable[[Path], None]] = {"main": build_main, "registry": build_registry}


def install(way: str) -> str:
    """Install detectron2 one way and verify that it can be imported.

    Args:
        way: A key of ``WAYS``.

    Returns:
        A sentence about what is installed now.

    Raises:
        InstallError: If the way does not work. An earlier installation is kept as long as building
            the new one has not succeeded.
    """
    with tempfile.TemporaryDirectory(prefix="install_detectron2_") as name:
        work_dir = Path(name)
        WAYS[way](work_dir)
        wheels = list(work_dir.glob("*.whl"))
        if len(wheels) != 1:
            raise InstallError(f"pip built {len(wheels)} wheels instead of one")
        # Both distributions hold the same files, and pip would mix them.
        others = [other for other in DISTRIBUTIONS if installed_version(other) is not None]
        if others:
            say(f"removing {' and '.join(others)}")
            run_pip("uninstall", "-q", "-y", *others)
        say(f"installing {wheels[0].name} and what it needs")
        quiet = ("install", "-q", "--progress-bar", "off", "--no-build-isolation")
        run_pip(*quiet, str(wheels[0]))
    usable, finding = probe_detectron2()
    if not usable:
        raise InstallError(f"installed, but {finding}")
    return finding


def instructions() -> str:
    """Return how to install detectron2 by hand."""
    python = sys.executable
    return f"""\
detectron2 could not be installed. By hand, either
  - from its repository (needs a C++ compiler and access to the repository):
      {python} -m pip install "{SETUPTOOLS}" wheel
      {python} -m pip install --no-build-isolation "git+{REPOSITORY}@{COMMIT}"
  - or from a checkout of it that you bring to this machine:
      {python} -m pip install --no-build-isolation path/to/detectron2
then run this script again: it keeps a detectron2 that can be imported."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Install detectron2 into the interpreter that runs this script."
    )
    parser.add_argument(
        "--source",
        choices=("auto", *WAYS),
        default="auto",
        help="main: its repository; registry: the fixed 0.5; auto: the first that works",
    )
    parser.add_argument(
        "--force", action="store_true", help="install even if detectron2 can be imported"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the script and return its exit code."""
    args = parse_args(argv)
    usable, finding = probe_detectron2()
    if usable and not args.force:
        say(f"nothing to do, {finding}")
        return 0
    say(finding + (", but --force was given" if usable else ""))

    try:
        require_torch()
        require_build_tools()
    except InstallError as error:
        say(f"failed: {error}")
        return 1

    for way in list(WAYS) if args.source == "auto" else [args.source]:
        try:
            finding = install(way)
        except InstallError as error:
            say(f"did not install from {way}: {error}")
        else:
            say(f"installed from {way}: {finding}")
            return 0
    print(instructions(), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
