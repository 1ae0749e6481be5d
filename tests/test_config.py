"""Tests of finding and loading the configs of this project."""

import shutil
from pathlib import Path

import pytest

config = pytest.importorskip("dense_kd.config", reason="dense_kd is not installed")

STUDENT = "quickstart/student.py"


@pytest.fixture
def package_dir(tmp_path, monkeypatch):
    """A checkout in a temporary folder that ``dense_kd.config`` believes to run from."""
    package = tmp_path / "projects" / "dense_kd"
    package.mkdir(parents=True)
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    quickstart = tmp_path / "configs" / "quickstart"
    quickstart.mkdir(parents=True)
    (tmp_path / "configs" / "common.py").write_text("lr = 0.1\n")
    (quickstart / "student.py").write_text("from ..common import lr\n\ntrain = dict(lr=lr)\n")
    (quickstart / "teacher.py").write_text("train = dict(lr=0.2)\n")
    return package


def test_a_config_is_found_in_the_checkout(package_dir):
    expected = package_dir.parents[1] / "configs" / STUDENT
    assert Path(config.get_config_file(STUDENT)) == expected.resolve()


def test_a_config_in_the_installed_package_comes_first(package_dir):
    shutil.copytree(package_dir.parents[1] / "configs", package_dir / "configs")
    expected = package_dir / "configs" / STUDENT
    assert Path(config.get_config_file(STUDENT)) == expected.resolve()


def test_a_config_outside_a_checkout_is_not_looked_for_above_the_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "dense_kd"
    package.mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "student.py").write_text("")
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    with pytest.raises(FileNotFoundError):
        config.get_config_file("student.py")


def test_a_config_loads_with_its_relative_imports(package_dir):
    assert config.get_config(STUDENT).train.lr == 0.1


def test_a_wrong_path_is_an_error_that_lists_where_it_was_looked_for(package_dir):
    with pytest.raises(FileNotFoundError) as info:
        config.get_config_file("quickstart/studnet.py")
    message = str(info.value)
    assert "'quickstart/studnet.py'" in message
    assert f"{package_dir.resolve() / 'configs'} (does not exist)" in message
    assert f"{package_dir.resolve().parents[1] / 'configs'}\n" in message


@pytest.mark.parametrize(
    "path", ["quickstart/studnet.py", "quickstart/student", "other/student.py"]
)
def test_a_wrong_path_is_an_error_that_names_close_matches(package_dir, path):
    with pytest.raises(FileNotFoundError, match="Did you mean:\n  quickstart/student.py"):
        config.get_config_file(path)


def test_a_wrong_path_without_close_matches_suggests_nothing(package_dir):
    with pytest.raises(FileNotFoundError) as info:
        config.get_config_file("xyz")
    assert "Did you mean" not in str(info.value)


def test_a_folder_is_not_a_config(package_dir):
    with pytest.raises(FileNotFoundError):
        config.get_config_file("quickstart")


def test_an_absolute_path_is_not_a_config_of_this_project(package_dir):
    absolute = package_dir.parents[1] / "configs" / STUDENT
    with pytest.raises(FileNotFoundError):
        config.get_config_file(str(absolute))
