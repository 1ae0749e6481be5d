"""The wheel is enough: it holds the command line and the configs."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.configs import RUNS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SOURCES = ("projects", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
LIST = """
import sys
import dense_kd
from dense_kd.cli import main
assert dense_kd.__file__.startswith(sys.argv[1]), dense_kd.__file__
sys.exit(main(["list", "configs", "--json"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, for building leaves files beside its sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in (*SOURCES, "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    command += ["--disable-pip-version-check", "--no-index", "-w", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_the_wheel_installs_the_console_script(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(name).decode())
    assert dict(entries["console_scripts"]) == {"dense-kd": "dense_kd.cli:main"}


def test_the_wheel_holds_every_module_and_template_and_lists_its_configs_outside_of_the_checkout(
    wheel, tmp_path
):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    modules = {p.relative_to(ROOT / "projects") for p in (ROOT / "projects").rglob("*.py")}
    templates = (ROOT / "projects/dense_kd/visualize/templates").iterdir()
    modules |= {path.relative_to(ROOT / "projects") for path in templates}
    assert all((tmp_path / module).is_file() for module in modules)
    studies = [path.relative_to(ROOT) for path in (ROOT / "configs" / "study").iterdir()]
    assert studies and all((tmp_path / "dense_kd" / study).is_file() for study in studies)
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [entry["name"] for entry in json.loads(done.stdout)] == RUNS
