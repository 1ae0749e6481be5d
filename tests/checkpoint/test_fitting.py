"""How much of a file must fit: all to evaluate and to resume, half to start from."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dense_kd import BCKD, MGD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    class_names,
    convert_file,
    load_strictly,
    read_content,
)
from helpers.builders import (
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.mmdet_models import detector

Weights = dict[str, Tensor]
DETECTORS = {
    "RetinaNet": tiny_retinanet, "FCOS": tiny_fcos, "ATSS": tiny_atss, "GFL": tiny_gfl,
    "DDOD": tiny_ddod, "AutoAssign": tiny_autoassign,
}  # fmt: skip


def saved(folder, content: object, name: str = "file.pth") -> str:
    path = str(folder / name)
    torch.save(content, path)
    return path


def distiller(student: nn.Module | None = None) -> Distiller:
    return Distiller(
        student=student or tiny_fcos(),
        teacher=Teacher(tiny_fcos(seed=5), None),
        methods=MethodSet(mgd=MGD(), bckd=BCKD()),
    )


def halved(state: Weights, keep: Callable[[int], bool]) -> Weights:
    """``state`` with the keys renamed whose index is not to be kept."""
    return {k if keep(i) else f"other.{k}": v for i, (k, v) in enumerate(state.items())}


def backbone_of(state: Weights) -> Weights:
    return {k: v for k, v in state.items() if k.startswith("backbone.bottom_up.")}


SELDOM: dict[str, Callable[[Weights], Weights]] = {
    "nothing in common": lambda state: {"foo": torch.zeros(3)},
    "other names": lambda state: {f"encoder.{k}": v for k, v in state.items()},
    "other shapes": lambda state: {k: torch.zeros(*v.shape, 2) for k, v in state.items()},
    "a third of it": lambda state: halved(state, lambda i: i % 3 == 0),
    "one layer alone": lambda state: {k: v for k, v in state.items() if "cls_score" in k},
    "the FPN alone": lambda state: {k: v for k, v in state.items() if "fpn_" in k},
    "constants of the config": lambda state: {"pixel_mean": torch.zeros(3)},
    "a method's parameters": lambda state: {"kd.mgd.x": torch.zeros(3)},
    "a third of the backbone": lambda state: dict(list(backbone_of(state).items())[::3]),
}
ENOUGH: dict[str, Callable[[Weights], Weights]] = {
    "all": dict,
    "the backbone": backbone_of,
    "two thirds of it": lambda state: halved(state, lambda i: i % 3 > 0),
    "other classes": lambda state: {
        k: torch.zeros(9, *v.shape[1:]) if "cls_score" in k else v for k, v in state.items()
    },
    "another head": lambda state: {k.replace("head.", "roi_heads."): v for k, v in state.items()},
    "more": lambda state: {**state, "kd.mgd.weight": torch.zeros(1), "extra": torch.zeros(1)},
}


@pytest.mark.parametrize("name", [*DETECTORS, "Distiller"])
def test_a_model_does_not_start_from_a_file_of_which_little_fits(tmp_path, name):
    build = DETECTORS.get(name, tiny_fcos)
    trained = dict(build(seed=3).state_dict())
    for what, change in SELDOM.items():
        path = saved(tmp_path, {"model": change(trained)})
        model = distiller() if name == "Distiller" else build()
        with pytest.raises(
            CheckpointError, match=r"file.pth(.|\n)*tensors go into(.|\n)*init_partial"
        ):
            AtomicCheckpointer(model).resume_or_load(path, resume=False)
            pytest.fail(what)
        AtomicCheckpointer(model, partial=True).load(path)


@pytest.mark.parametrize("what", list(ENOUGH))
def test_a_model_starts_from_a_file_of_which_much_fits_and_says_what_does_not(
    tmp_path, caplog, what
):
    trained = dict(tiny_fcos(seed=3).state_dict())
    given = ENOUGH[what](trained)
    for model in (tiny_fcos(), distiller()):
        with caplog.at_level(logging.INFO, logger="dense_kd"):
            AtomicCheckpointer(model).load(saved(tmp_path, {"model": given}))
        state = model.state_dict()
        used = [k for k, v in given.items() if k in state and v.shape == state[k].shape]
        assert all(torch.equal(state[key], given[key]) for key in used)
        [report] = [r.getMessage() for r in caplog.records if r.name.startswith("dense_kd")]
        assert f": {len(used)} of its " in report
        unused = [k for k in given if k not in used and not k.startswith("kd.")]
        assert all(key in report for key in unused[:20])
        caplog.clear()


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_file_is_evaluated_only_if_all_of_it_fits(tmp_path, name):
    build = DETECTORS[name]
    trained = dict(build(seed=3).state_dict())
    for what, change in {**SELDOM, **ENOUGH}.items():
        path = saved(tmp_path, {"model": change(trained)})
        if what == "all":
            load_strictly(build(), path)
            continue
        with pytest.raises(CheckpointError):
            load_strictly(build(), path)
            pytest.fail(what)


def test_a_distillers_checkpoint_is_evaluated_in_the_bare_student_and_in_its_config(tmp_path):
    model = distiller()
    AtomicCheckpointer(model, str(tmp_path)).save("model")
    for student in (tiny_fcos(seed=8), distiller(tiny_fcos(seed=8)).student):
        load_strictly(student, str(tmp_path / "model.pth"))
        assert torch.equal(student.head.cls_score.weight, model.student.head.cls_score.weight)


RESUMED: dict[str, Callable[[Weights], Weights]] = {
    "a missing weight": lambda s: {k: v for k, v in s.items() if k != "head.cls_score.bias"},
    "a missing statistic": lambda s: {k: v for k, v in s.items() if "running_mean" not in k},
    "a further weight": lambda s: {**s, "head.more.weight": torch.zeros(1)},
    "another shape": lambda s: {**s, "head.cls_score.bias": torch.zeros(9)},
    "no method": lambda s: {k: v for k, v in s.items() if not k.startswith("kd.")},
    "a part of a method": lambda s: {
        k: v for k, v in s.items() if not (k.startswith("kd.mgd.") and k.endswith("bias"))
    },
    "another method": lambda s: {k.replace("kd.mgd.", "kd.fgd."): v for k, v in s.items()},
}


@pytest.mark.parametrize("what", list(RESUMED))
def test_a_run_goes_on_only_with_the_model_it_had(tmp_path, what):
    model = distiller()
    checkpointer = AtomicCheckpointer(model, str(tmp_path))
    checkpointer.save("model", iteration=3)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 3
    before = dict(model.state_dict())
    changed = RESUMED[what](before)
    saved(tmp_path, {"model": changed, "iteration": 3}, "model.pth")
    key = next(
        k for k in [*before, *changed]
        if k not in before or k not in changed or before[k].shape != changed[k].shape
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="model.pth does not fit Distiller") as error:
        AtomicCheckpointer(distiller(), str(tmp_path)).resume_or_load("", resume=True)
    assert key in str(error.value) and "was started with" in str(error.value)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["running_var", "cls_score.weight", "kd.mgd."])
def test_nothing_is_trained_from_numbers_that_are_not_finite(tmp_path, name, resume):
    """Training would not show those of batch statistics, until the next checkpoint is refused."""
    state = distiller().state_dict()
    key = next(k for k in state if name in k and state[k].is_floating_point())
    state[key] = state[key].clone().fill_(float("nan"))
    path = saved(tmp_path, {"model": state, "iteration": 3}, "model.pth")
    if resume:
        (tmp_path / "last_checkpoint").write_text("model.pth")
    with pytest.raises(CheckpointError, match="(?s)not finite after loading.*earlier") as error:
        AtomicCheckpointer(distiller(), str(tmp_path)).resume_or_load(str(path), resume=resume)
    assert key in str(error.value)


def test_a_run_goes_on_without_what_its_version_did_not_save(tmp_path):
    """Buffers that are declared optional, and counters that a norm does not use."""
    model = detector("det_ddod")
    state = {
        k: v for k, v in model.state_dict().items()
        if "level_positives" not in k and "num_batches_tracked" not in k
    }  # fmt: skip
    assert len(state) < len(model.state_dict()) - 1
    saved(tmp_path, {"model": state, "iteration": 3}, "model.pth")
    (tmp_path / "last_checkpoint").write_text("model.pth")
    for run in (detector("det_ddod"), distiller_of(detector("det_ddod"))):
        extra = AtomicCheckpointer(run, str(tmp_path)).resume_or_load("", resume=True)
        assert extra["iteration"] == 3


def test_a_run_with_a_warmup_goes_on_from_a_checkpoint_that_does_not_count(tmp_path):
    def build() -> Distiller:
        methods = MethodSet(bckd=BCKD(warmup_iters=5))
        return Distiller(student=tiny_fcos(), teacher=Teacher(tiny_fcos(), None), methods=methods)

    state = {k: v for k, v in build().state_dict().items() if k != "kd.iteration"}
    assert len(state) == len(build().state_dict()) - 1
    saved(tmp_path, {"model": state, "iteration": 3}, "model.pth")
    (tmp_path / "last_checkpoint").write_text("model.pth")
    assert AtomicCheckpointer(build(), str(tmp_path)).resume_or_load("")["iteration"] == 3


def distiller_of(student: nn.Module) -> Distiller:
    return Distiller(
        student=student,
        teacher=Teacher(detector("det_ddod"), None),
        methods=MethodSet(bckd=BCKD()),
    )


FOREIGN = {
    "DETR": {"transformer.encoder.layers.0.linear1.weight": torch.zeros(1)},
    "YOLO": {"model.0.conv.weight": torch.zeros(1), "model.1.bn.bias": torch.zeros(1)},
    "two-stage": {"proposal_generator.rpn_head.conv.weight": torch.zeros(1)},
}


@pytest.mark.parametrize("what", list(FOREIGN))
def test_another_projects_file_is_named(tmp_path, what):
    path = saved(tmp_path, {"model": FOREIGN[what], "epoch": 3})
    for load in (
        lambda: load_strictly(tiny_fcos(), path),
        lambda: AtomicCheckpointer(tiny_fcos()).load(path),
    ):
        with pytest.raises(CheckpointError, match=f"checkpoint of .*{what}"):
            load()


@pytest.mark.parametrize(
    "content, said",
    [
        ([torch.zeros(1)] * 3, "a list of 3 values"),
        (torch.zeros(1), "one Tensor"),
        ({"state": {}, "param_groups": []}, "the state of an optimizer"),
        ({"optimizer": {"state": {}}, "epoch": 3}, "an optimizer without a model"),
        ({"model": {}}, "'model'"),
        ({"a": torch.zeros(1), "b": 3}, "'b' is a int, expected a tensor"),
        ({1: torch.zeros(1)}, "'1'"),
    ],
)
def test_what_holds_no_model_is_told(tmp_path, content, said):
    path = saved(tmp_path, content)
    for load in (
        lambda: load_strictly(tiny_fcos(), path),
        lambda: AtomicCheckpointer(tiny_fcos()).load(path),
    ):
        with pytest.raises(CheckpointError, match=f"file.pth holds no weights.*{said}"):
            load()


NAMES = ["cat", "dog", "traffic light", "fish"]
SAYS_CLASSES = {
    "mmdetection 2": lambda names: {"meta": {"CLASSES": tuple(names), "epoch": 12}},
    "mmdetection 3": lambda names: {"meta": {"dataset_meta": {"classes": tuple(names)}}},
    "mmdetection 3, old": lambda names: {"meta": {"dataset_meta": {"CLASSES": list(names)}}},
    "dataset_meta": lambda names: {"dataset_meta": {"classes": list(names), "palette": None}},
    "CLASSES": lambda names: {"CLASSES": tuple(names)},
    "ours, converted": lambda names: {"class_names": list(names)},
}


@pytest.mark.parametrize("place", list(SAYS_CLASSES))
def test_the_names_of_a_files_classes_must_be_the_models(tmp_path, place):
    state = {"model": tiny_fcos(seed=3).state_dict()}

    def load(names: list[str], ours: list[str] | None) -> None:
        path = saved(tmp_path, {**SAYS_CLASSES[place](names), **state})
        assert class_names(read_content(path)) == names
        Teacher(tiny_fcos(class_names=ours), path).load()

    load(NAMES, NAMES)
    load(["Cat", "dog", "traffic_light", "fish"], NAMES)
    load(NAMES, None)
    with pytest.raises(CheckpointError, match="same classes in another order.*class 0 is 'dog'"):
        load(["dog", "cat", *NAMES[2:]], NAMES)
    with pytest.raises(CheckpointError, match="other classes.*class 3 is 'bird' and not 'fish'"):
        load([*NAMES[:3], "bird"], NAMES)
    for ours in (NAMES, None):
        with pytest.raises(CheckpointError, match="5"):
            load([*NAMES, "bird"], ours)


@pytest.mark.parametrize("content", [{}, {"meta": None}, {"meta": {"CLASSES": None}}, [], {
    "meta": {"CLASSES": [1, 2]}}])  # fmt: skip
def test_a_file_may_say_no_classes(content):
    assert class_names(content) is None


def test_a_student_that_starts_from_other_classes_is_told(tmp_path, caplog):
    content = {"CLASSES": NAMES[::-1], "model": tiny_fcos(seed=3).state_dict()}
    AtomicCheckpointer(tiny_fcos(class_names=NAMES)).load(saved(tmp_path, content))
    assert "the same classes in another order" in caplog.text


def test_conversion_keeps_and_checks_the_names_of_classes(tmp_path):
    content = {**SAYS_CLASSES["mmdetection 2"](NAMES), "model": tiny_fcos().state_dict()}
    path, out = saved(tmp_path, content), str(tmp_path / "out.pth")
    convert_file(path, out, model=tiny_fcos(class_names=NAMES))
    assert class_names(read_content(out)) == NAMES
    with pytest.raises(CheckpointError, match="another order"):
        convert_file(path, out, model=tiny_fcos(class_names=NAMES[::-1]))
