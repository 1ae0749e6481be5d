"""``dense-kd maps``, from a config and images to files."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from dense_kd import get_config
from dense_kd.cli import main
from dense_kd.engine.building import build

VAL = Path("datasets/shapes/val")
TEACHER = Path("output/quickstart/teacher")


NARROW = "model.student.head.conv_dims=[32,32]"


@functools.cache
def states(config: str, width: int) -> tuple[dict, dict]:
    """Of a distiller, whose student's towers have that width, and its teacher."""
    torch.manual_seed(0)
    cfg = get_config(config)
    cfg.model.student.head.conv_dims = [width, width]
    model = build(cfg.model, "model")
    for detector in (model.student, model.teacher.model):
        detector.head.cls_score.bias.data.fill_(-1.0)
    return model.state_dict(), model.teacher.model.state_dict()


def write_run(config: str, folder: str, width: int = 64) -> Path:
    """What a run of the config, and that of its teacher, leave."""
    state, of_teacher = states(config, width)
    for place, content in ((Path("output/quickstart") / folder, state), (TEACHER, of_teacher)):
        place.mkdir(parents=True, exist_ok=True)
        torch.save({"model": content}, place / "model_final.pth")
        (place / "last_checkpoint").write_text("model_final.pth")
    return Path("output/quickstart") / folder


@pytest.fixture
def run(workspace) -> Path:
    return write_run("quickstart/distill.py", "bckd")


def maps(*arguments) -> int:
    return main(["maps", *map(str, arguments)])


def images() -> list[Path]:
    return sorted(VAL.iterdir())


def test_it_writes_figures_and_arrays_of_the_last_checkpoint_of_the_run(run, capsys):
    first = images()[0]
    assert maps("quickstart/distill", "--images", first, "--what", "bckd,tid", "--arrays") == 0
    folder = Path("maps") / first.stem
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["bckd.npz", "bckd.png", "tid.npz", "tid.png"]
    with np.load(folder / "bckd.npz") as arrays:
        assert [*arrays] == ["student_p3", "student_p4", "student_p5"]
        assert arrays["student_p3"].shape == (8, 8) and 0 < arrays["student_p3"].max() <= 0.4
    said = capsys.readouterr()
    assert said.out == "4 files: maps\n" and said.err == ""


def test_overrides_may_stand_behind_the_images_and_weights_may_be_named(run):
    shutil.move(run / "model_final.pth", "mine.pth")
    options = ["--what", "bckd", "--output", "out", "--format", "svg"]
    for given in (["mine.pth"], ["++train.init_checkpoint=mine.pth"]):
        shutil.rmtree("out", ignore_errors=True)
        assert maps("quickstart/distill", *given, *options, "--images", images()[0],
                    "train.output_dir=elsewhere") == 0  # fmt: skip
        assert [path.name for path in Path("out").rglob("*.svg")] == ["bckd.svg"]


def test_weights_that_are_given_twice_are_refused(run, capsys):
    twice = ["mine.pth", "train.init_checkpoint=model_final.pth"]
    assert maps("quickstart/distill", *twice, "--images", images()[0]) == 1
    assert "weights are given twice, as mine.pth and by" in capsys.readouterr().err


def test_the_config_of_a_runs_folder_has_its_weights_beside_it(run, tmp_path):
    from detectron2.config import LazyConfig

    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("model_final.pth", "last_checkpoint"):
        shutil.move(run / name, moved / name)
    LazyConfig.save(get_config("quickstart/distill.py"), str(moved / "config.yaml"))
    assert maps(moved / "config.yaml", "--images", images()[0], "--what", "bckd") == 0


def test_another_student_is_compared_and_the_same_one_is_no_different(run):
    options = ["--what", "bckd", "--arrays", "--against", run]
    assert maps("quickstart/distill", "--images", images()[0], *options) == 0
    with np.load(Path("maps") / images()[0].stem / "bckd.npz") as arrays:
        assert (arrays["student_p4"] == arrays["other_p4"]).all()
        assert not arrays["between_p4"].any() and not arrays["reduction_p4"].any()


def test_what_needs_objects_is_left_out_with_the_reason_for_other_images(run, capsys):
    photo = Path("photos/val") / images()[0].name
    assert maps("quickstart/distill", "--images", photo, "--what", "crosskd,pgd,tid") == 0
    said = capsys.readouterr().out
    assert [path.name for path in Path("maps").rglob("*.png")] == ["crosskd.png"]
    for name in ("pgd", "tid"):
        assert f"{photo}, {name}: it needs objects, and the image is not in the annotated" in said
    shutil.rmtree("datasets")
    assert maps("quickstart/distill", "--images", photo, "--what", "bckd,tid") == 0
    assert "tid: it needs objects, and there is no test set to have them" in capsys.readouterr().out


def test_an_image_without_objects_has_figures_but_pgds(run, capsys):
    from detectron2.data import DatasetCatalog

    records = DatasetCatalog.get("shapes_val")
    empty = Path(records[0]["file_name"])
    for record in records:
        record["annotations"] = []
    DatasetCatalog.remove("shapes_val")
    DatasetCatalog.register("shapes_val", lambda: records)
    assert maps("quickstart/distill", "--images", empty, "--what", "tid,pgd") == 0
    assert "pgd: PGD weights objects, and no object is annotated" in capsys.readouterr().out
    assert [path.name for path in Path("maps").rglob("*.png")] == ["tid.png"]


def test_the_cross_head_needs_the_convolutions_of_the_run(workspace, capsys):
    arrays = Path("maps") / images()[0].stem / "crosskd.npz"
    options = [NARROW, "--images", images()[0], "--what", "crosskd", "--arrays"]
    run = write_run("quickstart/crosskd.py", "crosskd", width=32)
    assert maps("quickstart/crosskd", *options, "--category", "star") == 0
    assert capsys.readouterr().out == "2 files: maps\n"
    assert any(name.startswith("cross_") for name in np.load(arrays))
    state = torch.load(run / "model_final.pth")["model"]
    bare = {key: value for key, value in state.items() if not key.startswith("kd.")}
    torch.save({"model": bare}, "bare.pth")
    assert maps("quickstart/crosskd", "bare.pth", *options) == 0
    said = capsys.readouterr().out
    assert "it is without the cross-head prediction: the checkpoint does not have the" in said
    assert not any(name.startswith("cross_") for name in np.load(arrays))
    state["kd.crosskd.adapters.cls.weight"] = torch.zeros(1)
    torch.save({"model": state}, "odd.pth")
    assert maps("quickstart/crosskd", "odd.pth", *options) == 1
    assert "kd.crosskd.adapters.cls.weight: expected (64, 32, 1, 1)" in capsys.readouterr().err


def test_an_unreadable_image_is_named_and_the_others_are_drawn(run, capsys):
    Path("some").mkdir()
    shutil.copy(images()[0], "some/b.png")
    Image.new("RGB", (64, 64)).save("some/a.png")
    Path("some/c.png").write_text("no image")
    told = []
    with mock.patch("dense_kd.cli.maps.image_counter", lambda: lambda *done: told.append(done)):
        assert maps("quickstart/distill", "--images", "some", "--what", "bckd") == 1
    assert "some/c.png: it is no image" in capsys.readouterr().err
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.parent.name for path in Path("maps").rglob("*.png")) == ["a", "b"]


WRONG = [
    (["quickstart/student"], "quickstart/student is of no distillation; expected a config"),
    (["quickstart/distill", "--what", "bckd,gradcam"], "expected one or more of bckd, crosskd"),
    (["quickstart/distill", "--what", "tid", "--against", "x"], "the other student (x) has no"),
    (["quickstart/distill", "--what", "tid", "--object", "0"], "the object (0) has no effect"),
    (["quickstart/distill", "--category", "dsk"], "no class 'dsk': expected a number from 0"),
    (["quickstart/distill", "--format", "gif"], "'.gif': expected one of"),
    (["quickstart/distill", "none.pth"], "none.pth"),
    (["quickstart/distill", "train.max_itre=1"], "max_itre"),
    (["quickstart/distill", "--what", "pgd", "--object", "99"], "there is no object 99"),
    (["quickstart/distill", "--against", "gone.pth"], "gone.pth does not exist"),
    (["quickstart/bckd_of_nothing"], "quickstart/bckd_of_nothing does not exist"),
]


def test_what_is_wrong_is_said_without_a_traceback(run, capsys):
    for arguments, said in WRONG:
        assert maps(*arguments, "--images", images()[0]) == 1, said
        error = capsys.readouterr().err
        assert error.startswith("dense-kd: ") and said in error
    assert not Path("maps").exists()


def test_no_weights_are_an_error_that_says_so(workspace, capsys):
    assert maps("quickstart/distill", "--images", images()[0]) == 1
    assert "holds no checkpoint of a run" in capsys.readouterr().err


def test_gradients_are_drawn_of_each_method_and_left_out_where_nothing_is_annotated(run, capsys):
    first = images()[0]
    shutil.copy(first, "other.png")
    asked = ["quickstart/distill", "--images", first, "other.png", "--what", "bckd,gradients"]
    assert maps(*asked, "--arrays") == 0
    with np.load(f"maps/{first.stem}/gradients.npz") as arrays:
        assert {name.rsplit("_", 1)[0] for name in arrays} == {"detection", "bckd"}
        assert arrays["bckd_p3"].shape == (8, 8) and arrays["bckd_p3"].max() > 0
    assert not Path("maps/other/gradients.png").exists()
    assert "gradients: " in capsys.readouterr().out
