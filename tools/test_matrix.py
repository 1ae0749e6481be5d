#!/usr/bin/env python3
"""Run the tests with the oldest and the newest supported versions and write a table of results.

A cell of the table is a Python, a torch and a detectron2: 0.5, or main from a folder that is named.
Each Python with its torch gets an environment in ``.matrix/`` (5 GB with CUDA builds of torch),
which is kept; results go cell by cell into ``benchmarks/results/test_matrix.json``, from which the
table in docs/developing.md is written. A cell that cannot run here keeps the result it had.

Usage: ``python3 tools/test_matrix.py --detectron2 path/to/detectron2 --only oldest``. Only the
standard library is used. A Python 3.9 is ``python3.9``, or what the variable PYTHON39 names.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix_results import (
    CELLS,
    PAGE,
    RESULTS,
    ROOT,
    Versions,
    read_report,
    read_results,
    store,
    summary,
    table,
)

WORK_DIR = ROOT / ".matrix"

# What an environment is made from: if one of them changes, it is brought up to date.
SOURCES = ("setup.py", "tools/install_detectron2.py", "tools/detectron2_fixes.py")

# Run in an environment; only its last line is read, as imports may print.
PROBE = """\
import json, platform, dense_kd, detectron2, numpy, torch, torchvision
modules = dict(torch=torch, torchvision=torchvision, numpy=numpy, detectron2=detectron2)
versions = {name: module.__version__.split("+")[0] for name, module in modules.items()}
print(json.dumps(dict(python=platform.python_version(), **versions)))
"""


class NotHere(Exception):
    """A cell cannot run on this machine; says why."""


def say(message: str) -> None:
    """Print a line of progress at once, also when the output is a file."""
    print(f"test_matrix: {message}", flush=True)


def last_line(text: str) -> str:
    """Return the last line of ``text``, where tools put what went wrong."""
    return (text.strip().splitlines() or ["no output"])[-1].strip()


def find_python(version: str) -> str:
    """Find the interpreter of a version.

    Args:
        version: as in "3.9".

    Returns:
        A path or name of one that runs and is of this version.

    Raises:
        NotHere: If there is none.
    """
    variable = "PYTHON" + version.replace(".", "")
    name = os.environ.get(variable) or f"python{version}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        result = subprocess.run([name, "-c", code], capture_output=True, text=True)
        found = last_line(result.stdout if result.returncode == 0 else result.stderr)
    except OSError as error:
        found = error.strerror or str(error)
    if found != version:
        raise NotHere(
            f"Python {version} is not installed here ({name}: {found}); "
            f"{variable}=path/to/python{version} names one"
        )
    return name


def run_logged(command: Sequence[str], log: Path, env: dict[str, str]) -> int:
    """Run ``command`` at the root of the repository and append its output to ``log``."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        process = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    return process.returncode


def install_commands(python: str, versions: Versions) -> list[list[str]]:
    """The commands that fill an environment, in the order of ``make env``.

    Args:
        python: the interpreter of the environment.
        versions: what it is to hold.
    """
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    pip += ["--progress-bar", "off"]
    return [
        [*pip, "setuptools>=62.3,<81", "wheel"],
        [*pip, *versions.pins],
        [python, "tools/install_detectron2.py", "--source", "registry"],
        [*pip, "--no-build-isolation", "-e", ".[test]"],
    ]


def make_environment(versions: Versions) -> str:
    """Make an environment, or bring it up to date.

    Returns:
        The path of its interpreter.

    Raises:
        NotHere: If its Python is not there, or something cannot be installed.
    """
    folder = WORK_DIR / versions.name
    python = str(folder / "bin" / "python")
    commands = install_commands(python, versions)
    content = repr(commands).encode() + b"".join((ROOT / name).read_bytes() for name in SOURCES)
    digest, stamp = hashlib.sha256(content).hexdigest(), folder / ".ready"
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    if not Path(python).is_file():
        command = [find_python(versions.python), "-m", "venv", str(folder)]
        say(f"making {folder.relative_to(ROOT)}")
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise NotHere(f"no virtual environment: {last_line(result.stdout + result.stderr)}")
    # Nothing that is installed later may move the pins.
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(versions.pins) + "\n", encoding="utf-8")
    env = {**os.environ, "PIP_CONSTRAINT": str(constraints)}
    log = WORK_DIR / f"{versions.name}.log"
    log.unlink(missing_ok=True)
    say(f"installing {', '.join(versions.pins)} and the rest, see {log.relative_to(ROOT)}")
    for command in commands:
        if run_logged(command, log, env) != 0:
            raise NotHere(f"{' '.join(command[1:])}: {last_line(log.read_text())}")
    stamp.write_text(digest)
    return python


def git(folder: Path, *args: str) -> str | None:
    """Return what git says about ``folder``, or None if that is not the top of a checkout."""
    command = ["git", "-C", str(folder)]
    try:
        # Git would answer for a checkout around the folder, too.
        top = subprocess.run([*command, "rev-parse", "--show-cdup"], capture_output=True, text=True)
        answer = subprocess.run([*command, *args], capture_output=True, text=True)
    except OSError:
        return None
    at_top = top.returncode == 0 and not top.stdout.strip()
    return answer.stdout.strip() if at_top and answer.returncode == 0 else None


def tested_commit() -> str | None:
    """The commit of this checkout, with "+" if files differ that the table is not written to."""
    commit = git(ROOT, "rev-parse", "--short=7", "HEAD")
    written = [f":!{path.relative_to(ROOT)}" for path in (PAGE, RESULTS)]
    changed = git(ROOT, "status", "--porcelain", "--", ".", *written)
    return f"{commit}+" if commit and changed else commit


def copy_detectron2(folder: Path) -> Path:
    """Copy the package of a checkout of detectron2, with the configs that its setup.py adds to it.

    Returns:
        A folder to import detectron2 from.
    """
    target = WORK_DIR / "main"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "detectron2", target / "detectron2")
    configs = target / "detectron2" / "model_zoo" / "configs"
    if not configs.exists():
        shutil.copytree(folder / "configs", configs)
    return target


def run_tests(
    python: str, log: Path, env: dict[str, str], args: Sequence[str], jobs: int
) -> dict[str, Any]:
    """Run pytest.

    Returns:
        The counts of :func:`read_report`, or {"error": what happened} if pytest wrote no report.
    """
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
    code = run_logged([*command, *args], log, env)
    if report.is_file():
        counts = read_report(report)
        if sum(counts.values()) > 0:
            return counts
    return {"error": f"pytest ended with exit code {code} and no result"}


def run_cell(
    name: str, detectron2: Path | None, args: Sequence[str] = (), jobs: int = 1
) -> dict[str, Any]:
    """Run the tests in one cell.

    Args:
        name: a key of ``CELLS``.
        detectron2: a checkout of detectron2 main, for the cells that need one.
        args: what pytest runs instead of all tests.
        jobs: number of processes.

    Returns:
        Date, commit, versions and counts (or an error), as they are stored.

    Raises:
        NotHere: If it cannot run on this machine.
    """
    cell = CELLS[name]
    if cell.main and detectron2 is None:
        raise NotHere(
            "needs a checkout of detectron2 main: DETECTRON2=folder (--detectron2 folder)"
        )
    python = make_environment(cell.versions)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "commit": tested_commit(),
        "python": cell.versions.python,
        "torch": cell.versions.torch,
        "torchvision": cell.versions.torchvision,
    }
    if cell.main and detectron2 is not None:
        env["PYTHONPATH"] = str(copy_detectron2(detectron2))
        result["detectron2_commit"] = git(detectron2, "rev-parse", "--short=7", "HEAD")
    log = WORK_DIR / f"{name}.log"
    log.unlink(missing_ok=True)
    say(f"{name}: running the tests, see {log.relative_to(ROOT)}")
    probe = subprocess.run([python, "-c", PROBE], cwd=ROOT, env=env, capture_output=True, text=True)
    if probe.returncode != 0:
        log.write_text(probe.stderr, encoding="utf-8")
        return {**result, "error": "these versions cannot be imported together"}
    result.update(json.loads(last_line(probe.stdout)))
    return {**result, **run_tests(python, log, env, args, jobs)}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--detectron2", type=Path, metavar="FOLDER", help="a checkout of main")
    parser.add_argument("--only", nargs="+", metavar="CELL", help=f"of {', '.join(CELLS)}")
    parser.add_argument(
        "--jobs", type=int, default=min(os.cpu_count() or 1, 8), help="processes of pytest"
    )
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="PATH", help="run these only, and write no table"
    )
    parser.add_argument("--env-only", action="store_true", help="make the environments only")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.only or ()) - set(CELLS))
    if unknown:
        parser.error(f"no cell is called {', '.join(unknown)}; there are {', '.join(CELLS)}")
    if args.detectron2 is not None and not (args.detectron2 / "detectron2/__init__.py").is_file():
        parser.error(f"--detectron2 {args.detectron2} is no checkout: it has no folder detectron2")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the script and return its exit code: 0 if a cell ran and none failed."""
    args = parse_args(argv)
    WORK_DIR.mkdir(exist_ok=True)
    passed = []
    for name in args.only or CELLS:
        try:
            if args.env_only:
                say(f"{name}: {make_environment(CELLS[name].versions)}")
                passed.append(True)
                continue
            result = run_cell(name, args.detectron2, args.tests, args.jobs)
        except NotHere as error:
            say(f"{name}: not run. {error}")
            continue
        passed.append(result.get("failed") == 0)
        say(f"{name}: {summary(result)}")
        if not args.tests:
            store(name, result)
    print(table(read_results()), end="")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
