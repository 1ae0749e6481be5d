"""What is said about a config file that is not there, is none, or raises."""

from __future__ import annotations

import builtins
import textwrap

import pytest

from dense_kd import get_config_file
from dense_kd.engine import RunError, check_run, load_config


def refused(path, *overrides: str) -> str:
    with pytest.raises(RunError) as error:
        load_config(str(path), overrides)
    return str(error.value)


def write(path, text: str):
    path.write_text(textwrap.dedent(text))
    return path


def test_a_missing_file_names_those_that_are_near(tmp_path):
    folder = get_config_file("quickstart/student.py").rsplit("/", 1)[0]
    assert f"did you mean {folder}/student.py" in refused(f"{folder}/studnet.py")
    for name in ("configs/bkcd/gfl_r101_r50_1x.py", "bkcd/gfl_r101_r50_1x"):
        assert "did you mean bckd/gfl_r101_r50_1x.py" in refused(name)
    assert "expected the name of one, as quickstart/distill.py" in refused("")
    assert "is a folder; it holds atss.py" in refused(folder)


def test_a_config_is_loaded_by_its_name_and_a_file_comes_first(tmp_path, monkeypatch):
    for name in ("quickstart/student", "quickstart/student.py"):
        assert load_config(name).train.output_dir == "output/quickstart/student"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    write(tmp_path / "quickstart" / "student.py", "train = dict(max_iter=5)")
    for name in ("quickstart/student", f"{tmp_path}/quickstart/student.py"):
        assert load_config(name) == {"train": {"max_iter": 5}}


def test_what_is_no_lazy_config_is_named(tmp_path):
    yacs = write(
        tmp_path / "retinanet.yaml",
        """
        _BASE_: "../Base-RetinaNet.yaml"
        MODEL:
          WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
        """,
    )
    assert "is a yacs config" in refused(yacs)
    assert "expected a LazyConfig" in refused(write(tmp_path / "config.json", "{}"))
    assert "holds no entries" in refused(write(tmp_path / "empty.yaml", ""))
    assert "holds no entries" in refused(write(tmp_path / "list.yaml", "[1]"))


def test_variables_of_a_lazy_config_may_be_called_as_keys_of_yacs_are(tmp_path):
    text = "INPUT = dict(size=64)\nTEST = DATASETS = MODEL = dict(a=1)\ntrain = dict(max_iter=5)\n"
    cfg = load_config(str(write(tmp_path / "mine.py", text)))
    assert cfg.train.max_iter == 5 and cfg.INPUT.size == 64


def test_a_config_that_raises_says_in_which_line_and_leaves_imports_alone(tmp_path):
    importer = builtins.__import__
    write(tmp_path / "base.py", "a = dict(b=1)\n\nc = a.d.e\n")
    cases = {
        "x = dict(a=1)\ny = x.b\n": "line 2: AttributeError",
        "import torch\n\nfrom .base import a\n": "base.py, line 3",
        "from .bases import a\n": "bases.py",
        "x = 1\ny = = 2\n": "line 2: SyntaxError",
        "from dense_kd import get_config\n\ncfg = get_config('gfl/r5_1x.py')\n": "line 3: File",
        "import nothing_of_this_name\n": "line 1: ModuleNotFoundError",
    }
    for index, (text, expected) in enumerate(cases.items()):
        message = refused(write(tmp_path / f"config{index}.py", text))
        assert expected in message and str(tmp_path) in message
        assert builtins.__import__ is importer


def test_a_config_that_lacks_parts_lists_what_it_has(tmp_path):
    path = write(tmp_path / "parts.py", "train = dict(max_iter=5)\nmodle = dict(a=1)\nlr = 0.1\n")
    with pytest.raises(RunError) as error:
        check_run(load_config(str(path)), "train")
    message = str(error.value)
    for part in ("model", "dataloader", "optimizer", "lr_multiplier"):
        assert f"has no {part!r}; it has ['modle', 'train']" in message
    assert "model.num_classes=5: the config has no 'model'" in refused(path, "model.num_classes=5")


def test_overrides_reach_what_parts_refer_to_and_nothing_else_that_a_config_holds(tmp_path):
    path = write(
        tmp_path / "distill.py",
        """
        from dense_kd import get_config

        run = get_config("quickstart/student.py")
        sizes = dict(batch=4)
        dataloader, optimizer, lr_multiplier, train = (
            run.dataloader, run.optimizer, run.lr_multiplier, run.train,
        )
        model = run.model
        dataloader.train.total_batch_size = "${sizes.batch}"
        """,
    )
    cfg = load_config(str(path), ["sizes.batch=2"])
    assert cfg.dataloader.train.total_batch_size == 2
    message = refused(path, "run.train.max_iter=5", "run.model.num_classes=3")
    assert "did you mean train.max_iter?" in message
    assert "did you mean model.num_classes?" in message
