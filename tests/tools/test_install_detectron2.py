"""Tests of tools/install_detectron2.py. None of them uses the network or pip."""

import contextlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install_detectron2.py"

SETUP_PY = """\
from setuptools import find_packages, setup
import torch

setup(
    name="detectron2_cdo",
    packages=find_packages(exclude=("configs", "tests*")),
    package_data={"detectron2.model_zoo": get_model_zoo_configs()},
    python_requires=">=3.6",
    install_requires=[
        "Pillow>=7.1",  # or use pillow-simd for better performance
        "future",  # used by caffe2
        "pydot",  # used to save caffe2 SVGs
        "black==21.4b2",
    ],
    extras_require={"all": ["shapely"]},
    ext_modules=get_extensions(),
    cmdclass={"build_ext": torch.utils.cpp_extension.BuildExtension},
)
"""

NUMPY_USER = """\
a = x.astype(np.int), np.zeros(3, dtype=np.bool), np.float, np.object, np.str
b = np.int64(1), np.bool_, np.float32, np.object_, np.int_, mynp.int
"""

SOURCE = {
    "setup.py": SETUP_PY,
    "detectron2/__init__.py": '__version__ = "0.5"\n',
    "detectron2/data/transforms/transform.py": "interp = Image.LINEAR, Image.LINEAR_LIGHT\n",
    "detectron2/structures/masks.py": NUMPY_USER,
    "detectron2/model_zoo/configs/COCO-Detection/retinanet.py": "model = None\n",
}

FIXES = [
    "drop_extensions",
    "add_operators_stub",
    "rename_pillow_filter",
    "replace_numpy_aliases",
    "relax_requirements",
    "drop_tools",
    "package_configs",
]


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installer():
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script that is run
    try:
        return load(SCRIPT, "install_detectron2")
    finally:
        sys.path.remove(str(SCRIPT.parent))


@pytest.fixture
def source_dir(tmp_path):
    """A small tree with everything in it that the fixes fix."""
    root = tmp_path / "detectron2_cdo-0.5"
    for name, text in SOURCE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def ways_taken(installer, monkeypatch):
    """Replace everything that installs; the list gets the ways that were tried."""
    taken = []

    def install(way):
        taken.append(way)
        if way == "main":
            raise installer.InstallError("unreachable")
        return "detectron2 0.5 is importable"

    def refuse(*args):
        raise AssertionError(f"pip was called: {args}")

    monkeypatch.setattr(installer, "install", install)
    monkeypatch.setattr(installer, "run_pip", refuse)
    monkeypatch.setattr(installer, "require_torch", lambda: None)
    monkeypatch.setattr(installer, "require_build_tools", lambda: None)
    return taken


def answer_probe(installer, monkeypatch, stdout="", stderr="", returncode=0):
    result = subprocess.CompletedProcess([], returncode, stdout, stderr)
    monkeypatch.setattr(installer, "run_python", lambda code: result)


def test_the_fixes_drop_the_extension_modules(installer, source_dir):
    installer.apply_fixes(source_dir)
    text = (source_dir / "setup.py").read_text()
    assert "ext_modules" not in text
    assert "cmdclass" not in text
    compile(text, "setup.py", "exec")


def test_the_fixes_replace_the_removed_names_of_pillow_and_numpy(installer, source_dir):
    installer.apply_fixes(source_dir)
    transform = (source_dir / "detectron2/data/transforms/transform.py").read_text()
    assert transform == "interp = Image.BILINEAR, Image.LINEAR_LIGHT\n"
    masks = (source_dir / "detectron2/structures/masks.py").read_text().splitlines()
    assert masks[0] == "a = x.astype(int), np.zeros(3, dtype=bool), float, object, str"


def test_the_fixes_leave_sized_numpy_types_untouched(installer, source_dir):
    installer.apply_fixes(source_dir)
    masks = (source_dir / "detectron2/structures/masks.py").read_text().splitlines()
    assert masks[1] == NUMPY_USER.splitlines()[1]


def test_the_fixes_replace_the_requirements_that_cannot_be_met(installer, source_dir):
    installer.apply_fixes(source_dir)
    text = (source_dir / "setup.py").read_text()
    for name in ("black", "future", "pydot"):
        assert name not in text
    for requirement in ("fvcore", "iopath<0.1.10", "omegaconf<2.4", "setuptools>=62.3,<81"):
        assert f'"{requirement}",' in text
    assert 'extras_require={"all": ["shapely"]}' in text


def test_the_fixes_package_the_configs_of_the_model_zoo(installer, source_dir):
    installer.apply_fixes(source_dir)
    text = (source_dir / "setup.py").read_text()
    assert '{"detectron2.model_zoo": ["configs/**/*.py", "configs/**/*.yaml"]}' in text


def test_the_fixes_keep_the_scripts_of_the_archive_out_of_the_package(installer, source_dir):
    installer.apply_fixes(source_dir)
    text = (source_dir / "setup.py").read_text()
    assert 'find_packages(exclude=("configs", "tests*", "tools*"))' in text


def test_the_stub_of_the_operators_imports_but_its_attributes_raise(installer, source_dir):
    installer.apply_fixes(source_dir)
    stub = load(source_dir / "detectron2" / "_C.py", "operators_stub")
    with pytest.raises(ImportError, match="box_iou_rotated.*without them"):
        _ = stub.box_iou_rotated
    # Only these: detectron2's report of the environment, at the start of a training, calls them.
    assert "no compiled operators" in stub.get_compiler_version() == stub.get_cuda_version()
    assert stub.has_cuda() is False  # asked for where there is a GPU


@pytest.mark.parametrize("name", FIXES)
def test_a_fix_with_nothing_to_fix_is_an_error(installer, source_dir, name):
    installer.apply_fixes(source_dir)
    with pytest.raises(installer.InstallError, match="nothing to fix"):
        getattr(sys.modules["detectron2_fixes"], name)(source_dir)


def test_configs_that_are_missing_from_the_archive_are_an_error(installer, source_dir):
    (source_dir / "detectron2/model_zoo/configs/COCO-Detection/retinanet.py").unlink()
    with pytest.raises(installer.InstallError, match="holds no configs"):
        installer.apply_fixes(source_dir)


def test_a_file_that_is_missing_from_the_archive_is_an_error(installer, source_dir):
    (source_dir / "detectron2/data/transforms/transform.py").unlink()
    with pytest.raises(installer.InstallError, match="rename_pillow_filter cannot be applied"):
        installer.apply_fixes(source_dir)


def test_an_archive_with_a_wrong_hash_is_refused(installer, tmp_path):
    archive = tmp_path / "detectron2-cdo-0.5.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(installer.InstallError, match="was expected"):
        installer.verify_sha256(archive, installer.ARCHIVE_SHA256)


def test_an_archive_with_the_expected_hash_is_accepted(installer, tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    installer.verify_sha256(archive, empty)


def test_nothing_of_an_archive_with_a_wrong_hash_is_unpacked_or_built(
    installer, tmp_path, monkeypatch
):
    commands = []

    def run_pip(*args):
        commands.append(args[0])
        folder = Path(args[args.index("-d") + 1])
        folder.mkdir()
        (folder / "detectron2-cdo-0.5.tar.gz").write_bytes(b"something else")

    monkeypatch.setattr(installer, "run_pip", run_pip)
    with pytest.raises(installer.InstallError, match="was expected"):
        installer.build_registry(tmp_path)
    assert commands == ["download"]
    assert not (tmp_path / "source").exists()


def test_pip_is_asked_to_check_the_hash_of_the_archive(installer, tmp_path, monkeypatch):
    def run_pip(*args):
        assert "--require-hashes" in args
        raise installer.InstallError("stop here")

    monkeypatch.setattr(installer, "run_pip", run_pip)
    with pytest.raises(installer.InstallError, match="stop here"):
        installer.build_registry(tmp_path)
    written = (tmp_path / "requirements.txt").read_text()
    assert written == f"{installer.ARCHIVE} --hash=sha256:{installer.ARCHIVE_SHA256}\n"


def test_an_archive_is_unpacked_to_the_folder_at_its_top(installer, tmp_path):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("detectron2_cdo-0.5/setup.py")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"pass"))
    folder = installer.unpack(archive, tmp_path / "source")
    assert folder.name == "detectron2_cdo-0.5"
    assert (folder / "setup.py").read_text() == "pass"


def test_the_installer_keeps_an_importable_detectron2(installer, monkeypatch, ways_taken, capsys):
    answer_probe(installer, monkeypatch, stdout="noise\ndetectron2 0.6 /x/__init__.py\n")
    assert installer.main([]) == 0
    assert ways_taken == []
    assert "nothing to do, detectron2 0.6 is importable" in capsys.readouterr().out


@pytest.mark.slow
def test_the_installer_keeps_the_detectron2_of_this_environment(installer, monkeypatch, capsys):
    pytest.importorskip("detectron2")

    def run_here(code):  # a new process would take seconds to import it
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        return subprocess.CompletedProcess([], 0, printed.getvalue(), "")

    monkeypatch.setattr(installer, "run_python", run_here)
    assert installer.main([]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_probe_runs_in_a_new_process_in_an_empty_folder(installer):
    code = "import os, sys; print(os.listdir(), 'torch' in sys.modules, file=sys.stderr)"
    result = installer.run_python(f"{code}; sys.exit(3)")
    assert (result.returncode, result.stderr) == (3, "[] False\n")


def test_the_installer_is_a_script():
    result = subprocess.run([sys.executable, str(SCRIPT), "-h"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--source" in result.stdout


def test_an_importable_detectron2_is_replaced_when_forced(installer, monkeypatch, ways_taken):
    answer_probe(installer, monkeypatch, stdout="detectron2 0.6 /x/__init__.py\n")
    assert installer.main(["--force", "--source", "registry"]) == 0
    assert ways_taken == ["registry"]


def test_an_unreachable_main_falls_back_to_the_registry(installer, monkeypatch, ways_taken, capsys):
    answer_probe(installer, monkeypatch, stderr="ModuleNotFoundError: detectron2", returncode=1)
    assert installer.main([]) == 0
    assert ways_taken == ["main", "registry"]
    output = capsys.readouterr().out
    assert "did not install from main: unreachable" in output
    assert "installed from registry" in output


def test_a_detectron2_that_is_too_old_is_replaced(installer, monkeypatch, ways_taken, capsys):
    answer_probe(installer, monkeypatch, stdout="detectron2 0.4.1 /x/__init__.py\n")
    assert installer.main(["--source", "registry"]) == 0
    assert ways_taken == ["registry"]
    assert "detectron2 0.4.1 is too old" in capsys.readouterr().out


def test_a_failure_of_every_way_gives_instructions_and_exit_code_1(
    installer, monkeypatch, ways_taken, capsys
):
    answer_probe(installer, monkeypatch, stderr="ModuleNotFoundError: detectron2", returncode=1)
    assert installer.main(["--source", "main"]) == 1
    assert ways_taken == ["main"]
    captured = capsys.readouterr()
    assert "did not install from main: unreachable" in captured.out
    assert "By hand" in captured.err
    assert installer.COMMIT in captured.err


def test_a_missing_torch_gives_the_command_to_install_it(installer, monkeypatch, capsys):
    answer_probe(installer, monkeypatch, stderr="No module named 'torch'", returncode=1)
    assert installer.main([]) == 1
    assert "pip install torch==2.12.1 torchvision==0.27.1" in capsys.readouterr().out


@pytest.fixture
def fake_git(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of git."""

    def write(script):
        git = tmp_path / "bin" / "git"
        git.parent.mkdir()
        git.write_text(f"#!/bin/sh\n{script}\n")
        git.chmod(0o755)
        monkeypatch.setenv("PATH", f"{git.parent}:/usr/bin:/bin")

    return write


def test_a_repository_that_cannot_be_reached_is_not_built(
    installer, ways_taken, fake_git, tmp_path
):
    fake_git('echo "prompt=$GIT_TERMINAL_PROMPT, could not resolve host" >&2; exit 128')
    with pytest.raises(installer.InstallError, match="prompt=0, could not resolve host"):
        installer.build_main(tmp_path)


@pytest.mark.slow
def test_a_repository_that_does_not_answer_costs_seconds_only(
    installer, ways_taken, fake_git, tmp_path, monkeypatch
):
    # The helper outlives the killed git, as git-remote-https does.
    fake_git("sleep 20 &\nsleep 20")
    monkeypatch.setattr(installer, "REACH_TIMEOUT", 0.5)
    start = time.monotonic()
    with pytest.raises(installer.InstallError, match="no answer"):
        installer.build_main(tmp_path)
    assert time.monotonic() - start < 10


def test_a_missing_git_skips_main(installer, ways_taken, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(installer.InstallError, match="git is not installed"):
        installer.build_main(tmp_path)
