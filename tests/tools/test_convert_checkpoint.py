"""tools/convert_checkpoint.py."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch

from dense_kd import Predictor
from dense_kd.checkpoint import CheckpointError, convert_file, read_content, read_weights
from dense_kd.checkpoint.description import description_of
from helpers.builders import GOLDEN, tiny_fcos
from helpers.described import picture
from helpers.mmdet_models import detector
from helpers.script_runs import run_in_fork

SCRIPT = Path(__file__).parent.parent.parent / "tools" / "convert_checkpoint.py"
FCOS = GOLDEN / "det_fcos.pth"
TRICKS = GOLDEN / "det_fcos_tricks.pth"


CONFIG = """
import sys
sys.path[:0] = {folders}
from detectron2.config import LazyCall as L
from helpers.mmdet_models import detector
from dense_kd import BCKD, Distiller, MethodSet, Teacher

model = L(detector)(name="det_fcos", norm="FrozenBN")
if {distiller}:
    model = L(Distiller)(
        student=model,
        teacher=L(Teacher)(model=L(detector)(name="det_fcos_tricks"), weights="none.pth"),
        methods=L(MethodSet)(bckd=L(BCKD)()),
    )
"""


def test_what_is_checked_against_a_config_describes_its_detector(tmp_path):
    config, out = written_config(tmp_path), tmp_path / "out.pth"
    assert run(FCOS, out, "--config", config).returncode == 0
    with pytest.raises(CheckpointError, match="'helpers.mmdet_models.detector', which is none of"):
        Predictor(out)
    found = Predictor(out, device="cpu", allow=[detector]).predict([picture()])
    assert len(next(found).class_names) == Predictor(out, allow=[detector]).model.num_classes

    again = tmp_path / "again.pth"  # what describes itself is converted with its description
    assert run(out, again, "--part", "student").returncode == 0
    assert description_of(read_content(str(again)), "") is not None
    refused = run(FCOS, again)
    assert refused.returncode == 1 and "again.pth is there already; give anoth" in refused.stderr
    assert run(FCOS, again, "--overwrite").returncode == 0
    assert description_of(read_content(str(again)), "") is None


def written_config(folder: Path, distiller: bool = False) -> Path:
    """A config of ``det_fcos``, or of ``det_fcos_tricks`` teaching it."""
    tests = Path(__file__).parent.parent
    path = folder / "config.py"
    folders = [str(tests), str(tests / "checkpoint")]
    path.write_text(CONFIG.format(folders=folders, distiller=distiller))
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    """The script in this process: to import detectron2 anew takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    argv = [str(SCRIPT), *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            err.write(f"{end.code}\n")
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


@pytest.mark.slow
def test_it_is_a_script(tmp_path):
    """How it starts in an interpreter of its own is tested with the other scripts."""
    done = run_in_fork([str(FCOS), str(tmp_path / "out.pth")], tmp_path, script=SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == run(FCOS, tmp_path / "out.pth", "--overwrite").stdout


@pytest.mark.parametrize(
    "name, head",
    [
        ("det_fcos", "FCOS"),
        ("det_fcos_tricks", "FCOS"),
        ("det_retinanet", "RetinaNet"),
        ("det_autoassign", "AutoAssign"),
        ("det_ddod", "DDOD"),
    ],
)
def test_what_it_writes_loads_like_the_original(tmp_path, name, head):
    source, target = GOLDEN / f"{name}.pth", tmp_path / "converted.pth"
    conversion = convert_file(str(source), str(target))
    original, converted = read_weights(str(source)), read_weights(str(target))
    assert list(torch.load(target, weights_only=True)) == ["model"]
    assert list(original) == list(converted)
    assert all(torch.equal(original[key], converted[key]) for key in original)
    assert conversion.model == head
    assert os.listdir(tmp_path) == ["converted.pth"]


def test_it_prints_what_became_of_the_keys(tmp_path):
    done = run(FCOS, tmp_path / "out.pth")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[0].endswith("out.pth: mmdetection's FCOS")
    counts = {group: rows[group].split() for group in ("backbone", "fpn", "head", "all")}
    weights = read_weights(str(FCOS))
    elements = sum(value.numel() for value in weights.values())
    assert counts["all"] == [str(len(weights)), f"{elements:,}"]
    assert counts["fpn"][0] == "16" and counts["head"][0] == "35"
    assert sum(int(counts[group][0]) for group in ("backbone", "fpn", "head")) == len(weights)
    assert rows["dropped:"] == "num_batches_tracked x 20 (nothing learned)"


def test_a_distillers_student_and_teacher_are_taken_out(tmp_path):
    state = torch.load(FCOS, weights_only=True)["state_dict"]
    both = {f"student.{key}": value for key, value in state.items()}
    both |= {f"teacher.{key}": value + 1 for key, value in state.items()}
    both["distill_losses.0.align.weight"] = torch.zeros(1)
    torch.save({"state_dict": both}, tmp_path / "distiller.pth")
    weights = {}
    for part in ("student", "teacher"):
        target = tmp_path / f"{part}.pth"
        convert_file(str(tmp_path / "distiller.pth"), str(target), part)
        weights[part] = read_weights(str(target))
    original = read_weights(str(FCOS))
    assert all(torch.equal(weights["student"][key], original[key]) for key in original)
    assert all(torch.equal(weights["teacher"][key], original[key] + 1) for key in original)


def test_a_detector_is_no_distiller(tmp_path):
    with pytest.raises(CheckpointError, match=r"no keys under 'student\.'.*bbox_head"):
        convert_file(str(FCOS), str(tmp_path / "out.pth"), "student")


@pytest.mark.parametrize("what", ["missing", "ours", "damaged", "no folder", "same file"])
def test_errors_say_what_is_wrong_and_leave_no_file(tmp_path, what):
    folder = tmp_path / "out"
    folder.mkdir()
    source, target = tmp_path / "in.pth", folder / "out.pth"
    if what == "missing":
        parts = ["in.pth does not exist"]
    elif what == "ours":
        torch.save({"model": tiny_fcos().state_dict()}, source)
        parts = ["in.pth is no checkpoint of mmdetection", "['model']"]
    elif what == "damaged":
        source.write_bytes(FCOS.read_bytes()[:1000])
        parts = ["in.pth (1000 bytes) could not be read"]
    elif what == "no folder":
        source.write_bytes(FCOS.read_bytes())
        target = folder / "none" / "out.pth"
        parts = ["the folder of OUT does not exist"]
    else:
        source.write_bytes(FCOS.read_bytes())
        target = source
        parts = ["are the same file"]
    done = run(source, target)
    assert done.returncode != 0
    for part in parts:
        assert part in done.stderr
    assert os.listdir(folder) == []


def test_a_detector_of_torchvision_is_converted_with_a_table(tmp_path):
    norms = [f"backbone.body.bn1.{kind}" for kind in ("weight", "num_batches_tracked")]
    towers = [f"head.{b}_head.conv.0.weight" for b in ("classification", "regression")]
    shapes = {
        **dict.fromkeys([*norms, *towers], (4,)),
        "backbone.fpn.extra_blocks.p6.bias": (4,),
        "head.classification_head.cls_logits.weight": (91, 4, 3, 3),
        "head.classification_head.cls_logits.bias": (91,),
        "head.regression_head.bbox_reg.weight": (4, 4, 3, 3),
        "head.regression_head.bbox_reg.bias": (4,),
        "head.regression_head.bbox_ctrness.weight": (1, 4, 3, 3),
        "head.regression_head.bbox_ctrness.bias": (1,),
    }
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "in.pth")
    conversion = convert_file(str(tmp_path / "in.pth"), str(tmp_path / "out.pth"))
    assert (conversion.project, conversion.model) == ("torchvision", "FCOS")
    table = [line.split() for line in conversion.table().splitlines()]
    assert table[2:5] == [["backbone", "1", "4"], ["fpn", "1", "4"], ["head", "8", "3,153"]]
    assert table[6] == "dropped: backbone.body.bn1.num_batches_tracked (nothing learned)".split()
    weights = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert weights["head.cls_score.weight"].shape == (80, 4, 3, 3)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("bbox_head.conv_reg.bias", "head.bbox_pred.bias"),
        ("bbox_head.reg_convs.3.gn.weight", "head.bbox_subnet.10.weight"),
        ("bbox_head.scales.4.scale", "head.scales.4.scale"),
    ],
)
def test_an_incomplete_head_is_refused_without_a_config(tmp_path, theirs, ours):
    content = torch.load(FCOS, weights_only=True)
    del content["state_dict"][theirs]
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(
        CheckpointError, match=f"in.pth.*FCOS.*lacks what would be our keys {ours}$"
    ):
        convert_file(str(tmp_path / "in.pth"), str(tmp_path / "out.pth"))
    assert os.listdir(tmp_path) == ["in.pth"]


@pytest.mark.parametrize(
    "source, distiller, part",
    [(FCOS, False, None), (TRICKS, True, None), ("a distiller's", True, "student")],
)
def test_what_fits_the_config_is_written(tmp_path, source, distiller, part):
    if part:
        state = torch.load(FCOS, weights_only=True)["state_dict"]
        source = tmp_path / "distiller.pth"
        torch.save({"state_dict": {f"student.{k}": v for k, v in state.items()}}, source)
    arguments = [source, tmp_path / "out.pth", "--config", written_config(tmp_path, distiller)]
    done = run(*arguments, *(("--part", part) if part else ()))
    assert done.returncode == 0, done.stderr
    assert read_weights(str(tmp_path / "out.pth"))


def test_what_does_not_fit_the_config_is_listed_and_not_written(tmp_path):
    done = run(TRICKS, tmp_path / "out.pth", "--config", written_config(tmp_path))
    assert done.returncode != 0
    for part in ["det_fcos_tricks.pth does not fit FCOS", "8 unexpected", "head.cls_subnet.0.bias"]:
        assert part in done.stderr
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.slow
def test_a_file_with_our_keys_is_checked_and_written_smaller(tmp_path):
    state = read_weights(str(FCOS))
    method = {"kd.mgd.weight": torch.zeros(1)}
    torch.save({"model": {**state, **method}, "optimizer": {}, "iteration": 3}, tmp_path / "in.pth")
    config = written_config(tmp_path, distiller=True)
    arguments = [tmp_path / "in.pth", tmp_path / "out.pth", "--config", config, "--overwrite"]
    done = run(*arguments, "--part", "student")
    assert done.returncode == 0, done.stderr
    assert "the keys are ours already" in done.stdout
    assert "dropped: kd.mgd.weight (of a method)" in done.stdout
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(content) == ["model", "dense_kd"] and content["model"].keys() == state.keys()
    done = run(*arguments, "--part", "teacher")
    assert done.returncode != 0 and "has no teacher in it" in done.stderr
    done = run(*arguments)  # against the teacher of the config
    assert done.returncode != 0 and "in.pth does not fit FCOS" in done.stderr
