"""What stands around a model in a file, and in front of its keys, is taken off in one place."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from dense_kd import BCKD, MGD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError, convert_file, read_weights
from helpers.builders import GOLDEN, tiny_fcos, tiny_retinanet
from helpers.mmdet_models import detector

Weights = dict[str, Tensor]


def under(prefix: str, state: Weights) -> Weights:
    return {prefix + key: value for key, value in state.items()}


def ours(seed: int = 3) -> Weights:
    return dict(tiny_fcos(seed=seed).state_dict())


@functools.cache
def mmdets() -> Weights:
    return dict(torch.load(GOLDEN / "det_fcos.pth", weights_only=True)["state_dict"])


@functools.cache
def mmdets_in_our_keys() -> Weights:
    return read_weights(str(GOLDEN / "det_fcos.pth"))


def saved(folder, content: object) -> str:
    path = str(folder / "file.pth")
    torch.save(content, path)
    return path


ONE_MODEL = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "iteration": 3},
    "state_dict": lambda state: {"state_dict": state, "meta": {}},
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3},
    "DeepSpeed": lambda state: {"module": state, "dp_world_size": 8},
    "DDP": lambda state: {"model": under("module.", state)},
    "compiled": lambda state: {"model": under("_orig_mod.", state)},
    "DDP of compiled": lambda state: {"model": under("module._orig_mod.", state)},
    "compiled DDP": lambda state: {"model": under("_orig_mod.module.", state)},
    "DDP twice": lambda state: {"state_dict": under("module.module.", state)},
    "a compiled backbone": lambda state: {
        "model": {k.replace("backbone.", "backbone._orig_mod."): v for k, v in state.items()}
    },
    "Lightning": lambda state: {"state_dict": under("model.", state), "epoch": 3, "loops": {}},
    "Lightning, compiled": lambda state: {"state_dict": under("model._orig_mod.", state)},
    "torch's average": lambda state: {
        "model": {"n_averaged": torch.tensor(9), **under("module.", state)}
    },
    "mmengine's average": lambda state: {
        "state_dict": {"steps": torch.tensor(9), **under("module.", state)}
    },
    "timm's average": lambda state: {
        "state_dict": {k: v * 0 for k, v in state.items()}, "state_dict_ema": state,
    },
    "mmcv's average": lambda state: {
        "state_dict": {**state, **{f"ema_{k.replace('.', '_')}": v * 0 for k, v in state.items()}}
    },
}  # fmt: skip


def assert_read(path: str, model: nn.Module, expected: Weights) -> None:
    teacher = Teacher(model, path)
    teacher.load()
    loaded = teacher.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


@pytest.mark.parametrize("wrapping", [w for w in ONE_MODEL if w != "mmcv's average"])
def test_our_weights_are_read_whatever_is_around_them(tmp_path, wrapping):
    path = saved(tmp_path, ONE_MODEL[wrapping](ours()))
    assert_read(path, tiny_fcos(), ours())
    student = tiny_fcos()
    AtomicCheckpointer(student).load(path)
    assert all(torch.equal(student.state_dict()[key], value) for key, value in ours().items())


@pytest.mark.parametrize("wrapping", [w for w in ONE_MODEL if w != "a compiled backbone"])
def test_mmdetections_weights_are_read_whatever_is_around_them(tmp_path, wrapping):
    expected = mmdets_in_our_keys()
    path = saved(tmp_path, ONE_MODEL[wrapping](mmdets()))
    assert_read(path, detector("det_fcos"), expected)
    student = detector("det_fcos")
    AtomicCheckpointer(student).load(path)
    assert all(torch.equal(student.state_dict()[key], value) for key, value in expected.items())


TWO_MODELS = {
    "mmdetection": ("student.", "teacher."),
    "mmrazor 1.x": ("architecture.", "teacher."),
    "mmrazor 0.x": ("architecture.model.", "distiller.teacher."),
    "mmrazor 0.x, a wrapped teacher": ("architecture.model.", "distiller.teacher.model."),
    "DDP of a distiller": ("module.student.", "module.teacher."),
    "DDP in a distiller": ("student.module.", "teacher.module."),
    "Unbiased Teacher": ("modelStudent.", "modelTeacher."),
    "Unbiased Teacher, DDP": ("module.modelStudent.", "module.modelTeacher."),
}
"""{whose distiller: (before the keys of its student, of its teacher)}"""


@pytest.mark.parametrize("project", list(TWO_MODELS))
@pytest.mark.parametrize("layout", ["ours", "mmdetection"])
def test_each_of_two_models_is_taken_out(tmp_path, project, layout):
    state = mmdets() if layout == "mmdetection" else ours()
    student, teacher = TWO_MODELS[project]
    around = "module." if student.startswith("module.") else ""
    connectors = {f"{around}distiller.connectors.c0.weight": torch.zeros(1)}
    both = {**under(student, state), **under(teacher, {k: v * 2 for k, v in state.items()})}
    path = saved(tmp_path, {"meta": {}, "state_dict": {**both, **connectors}})
    build = tiny_fcos if layout == "ours" else lambda: detector("det_fcos")
    for part, factor in (("student", 1), ("teacher", 2)):
        model = build()
        out = str(tmp_path / f"{part}.pth")
        convert_file(path, out, part, model=model)
        key = "head.cls_score.weight"
        expected = state.get("bbox_head.conv_cls.weight", state.get(key)) * factor
        assert torch.equal(model.state_dict()[key], expected)
        assert torch.equal(read_weights(out)[key], expected)
    if project.startswith("Unbiased"):  # evaluates the average
        assert torch.equal(read_weights(path)[key], expected)
    else:
        for read in (
            read_weights,
            lambda path: AtomicCheckpointer(build()).load(path),
            lambda path: Teacher(build(), path).load(),
        ):
            with pytest.raises(CheckpointError, match="checkpoint of a distiller.*--part student"):
                read(path)


def distiller(**methods) -> Distiller:
    return Distiller(
        student=tiny_fcos(),
        teacher=Teacher(tiny_fcos(seed=5), None),
        methods=MethodSet(**(methods or {"bckd": BCKD()})),
    )


@pytest.mark.parametrize("method", ["bckd", "mgd"])
def test_the_student_is_taken_out_of_our_distillers_checkpoint(tmp_path, method):
    model = distiller(**{method: BCKD() if method == "bckd" else MGD()})
    AtomicCheckpointer(model, str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    conversion = convert_file(path, str(tmp_path / "out.pth"), "student", model=tiny_fcos(seed=9))
    assert conversion.project == "dense_kd"
    weights = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert set(weights) == set(model.student.state_dict())
    with pytest.raises(CheckpointError, match="has no teacher in it"):
        convert_file(path, str(tmp_path / "other.pth"), "teacher")


def test_a_file_with_our_keys_is_checked_against_a_model(tmp_path):
    path, out = saved(tmp_path, {"model": ours()}), str(tmp_path / "out.pth")
    with pytest.raises(CheckpointError, match="need no conversion"):
        convert_file(path, out)
    with pytest.raises(CheckpointError, match="does not fit RetinaNet"):
        convert_file(path, out, model=tiny_retinanet())
    assert convert_file(path, out, model=tiny_fcos()).dropped == {}
    assert set(read_weights(out)) == set(ours())


def test_two_tensors_of_one_name_are_refused(tmp_path):
    state = {**ours(), "head._orig_mod.cls_score.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="two tensors of one name.*_orig_mod"):
        read_weights(saved(tmp_path, {"model": state}))


class Compiled(nn.Module):
    """As torch.compile's: the model is ``_orig_mod`` in it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._orig_mod = model


def compiled(model: nn.Module, place: str) -> nn.Module:
    if place == "outside":
        return Compiled(model)
    if place == "parallel":
        return Compiled(nn.DataParallel(model))
    model.get_submodule(place).add_module("cls_score", Compiled(model.head.cls_score))
    return model


@pytest.mark.parametrize("place", ["outside", "parallel", "head"])
def test_a_compiled_model_saves_and_loads_the_keys_of_the_bare_one(tmp_path, place):
    trained = tiny_fcos(seed=3)
    AtomicCheckpointer(compiled(trained, place), str(tmp_path)).save("model", iteration=3)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    assert content["model"].keys() == ours().keys()
    for resume in (True, False):
        other = compiled(tiny_fcos(seed=4), place)
        checkpointer = AtomicCheckpointer(other, str(tmp_path))
        extra = checkpointer.resume_or_load(str(tmp_path / "model.pth"), resume=resume)
        assert extra["iteration"] == 3
        loaded = other.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(loaded, ours().values()))
    assert_read(str(tmp_path / "model.pth"), tiny_fcos(), ours())


def test_torch_compile_is_taken_off_a_distiller(tmp_path):
    model = torch.compile(distiller(mgd=MGD()), backend="eager")
    AtomicCheckpointer(model, str(tmp_path)).save("model")
    content = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    assert content.keys() == distiller(mgd=MGD()).state_dict().keys()
