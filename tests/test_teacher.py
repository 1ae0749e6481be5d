"""The teacher: strict loading, freezing, its own normalisation and precision."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from dense_kd import BCKD, Distiller, MethodSet, Teacher, from_detectron2
from dense_kd.checkpoint import CheckpointError
from dense_kd.methods.base.class_maps import correspondence, counterparts
from helpers.builders import (
    atss_config,
    batch,
    fcos_config,
    gfl_config,
    randomized,
    retinanet_config,
    tiny_ddod,
    tiny_fcos,
    tiny_retinanet,
)


def run(teacher: Teacher, student, inputs):
    return teacher.run(inputs, student.preprocess_image(inputs), student)


def distiller(weights: str, **options) -> Distiller:
    return Distiller(
        student=tiny_retinanet(),
        teacher=Teacher(tiny_retinanet(**options), weights),
        methods=MethodSet(bckd=BCKD()),
    )


@pytest.fixture
def checkpoint(tmp_path) -> str:
    path = str(tmp_path / "teacher.pth")
    torch.save({"model": tiny_retinanet(seed=7).state_dict(), "iteration": 3}, path)
    return path


def test_it_loads_in_the_first_training_step_and_equals_the_saved_model(checkpoint):
    model = distiller(checkpoint)
    assert not model.teacher.loaded
    model(batch())
    expected = tiny_retinanet(seed=7).state_dict()
    loaded = model.teacher.model.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_it_gives_no_gradient_and_stays_in_eval_mode():
    teacher = Teacher(tiny_retinanet(norm="BN"), None)
    teacher.model.train()  # somebody's mistake
    dense = run(teacher, tiny_retinanet(), batch())
    assert not teacher.model.training
    assert not any(x.requires_grad for x in [*dense.logits, *dense.boxes, *dense.features])
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_resume_lets_gradients_reach_the_taps_only():
    teacher = Teacher(tiny_fcos(), None)
    inputs = batch()
    student = tiny_fcos(seed=1)
    dense = student.run(student.preprocess_image(inputs), taps=[("cls", 1), ("bbox", 1)])
    taps = {b: [t.detach().requires_grad_() for t in dense.taps[b, 1]] for b in ("cls", "bbox")}
    crossed = teacher.resume(dense.features, taps, 1, dense.image_sizes)
    assert [x.shape for x in crossed.logits] == [x.shape for x in dense.logits]
    (sum(x.sum() for x in crossed.logits) + sum(x.sum() for x in crossed.boxes)).backward()
    assert all(t.grad.abs().sum() > 0 for tap in taps.values() for t in tap)
    assert all(p.grad is None for p in teacher.model.parameters())


def test_it_keeps_its_own_normalisation_and_channel_order():
    inputs = batch()
    options = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [1.0, 2.0, 3.0]}
    teacher = Teacher(tiny_retinanet(input_format="RGB", **options), None)
    dense = run(teacher, tiny_retinanet(), inputs)
    flipped = [{**x, "image": x["image"].flip(0)} for x in inputs]
    alone = teacher.model.run(teacher.model.preprocess_image(flipped))
    for a, b in zip(dense.logits, alone.logits):
        torch.testing.assert_close(a, b)
    other = run(Teacher(tiny_retinanet(), None), tiny_retinanet(), inputs)
    assert not torch.allclose(dense.logits[0], other.logits[0])


def test_it_uses_the_students_images_when_both_normalise_alike():
    student, teacher = tiny_retinanet(), Teacher(tiny_retinanet(), None)
    images = student.preprocess_image(batch())
    dense = teacher.run([], images, student)  # the raw batch is not needed
    assert torch.isfinite(dense.logits[0]).all()


def test_precision_sets_its_own_autocast():
    inputs = batch()
    student = tiny_retinanet()
    full = run(Teacher(tiny_retinanet(seed=1), None), student, inputs).features[0]
    half = run(Teacher(tiny_retinanet(seed=1), None, precision="bfloat16"), student, inputs)
    assert half.features[0].dtype == torch.bfloat16
    assert half.logits[0].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fixed = run(Teacher(tiny_retinanet(seed=1), None, precision="float32"), student, inputs)
        follows = run(Teacher(tiny_retinanet(seed=1), None), student, inputs)
    torch.testing.assert_close(fixed.features[0], full)
    assert follows.features[0].dtype == torch.bfloat16


def test_the_head_may_have_a_precision_of_its_own_also_for_the_students_features():
    inputs, student = batch(), tiny_retinanet()
    full = run(Teacher(tiny_retinanet(seed=1), None), student, inputs)
    trunk = Teacher(tiny_retinanet(seed=1), None, precision="bfloat16", head_precision="float32")
    found = run(trunk, student, inputs)
    rounded = [level.bfloat16().float() for level in found.features]
    assert all(torch.equal(level, twin) for level, twin in zip(found.features, rounded))
    outputs, _ = trunk.model.head.run(found.features, ())
    exact = trunk.model.dense_pass(found.features, outputs, found.image_sizes)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.logits, exact.logits))
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(found.logits, full.logits))

    head = Teacher(tiny_retinanet(seed=1), None, head_precision="bfloat16")
    features = run(head, student, inputs).features
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(features, full.features))
    taps = {"cls": full.features, "bbox": full.features}
    for teacher, is_half in ((head, True), (trunk, False)):
        resumed = teacher.resume(full.features, taps, 0, full.image_sizes)
        exact = Teacher(tiny_retinanet(seed=1), None).resume(
            full.features, taps, 0, full.image_sizes
        )
        equal = [torch.equal(ours, theirs) for ours, theirs in zip(resumed.logits, exact.logits)]
        assert not any(equal) if is_half else all(equal)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((nn.Identity(), "x.pth"), TypeError, "expected a detector of dense_kd"),
        ((tiny_retinanet(), ""), ValueError, "no weights"),
    ],
)
def test_bad_arguments_say_what_is_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        Teacher(*arguments)


@pytest.mark.parametrize("option", ["precision", "head_precision"])
def test_an_unknown_precision_says_which_there_are(option):
    with pytest.raises(ValueError, match=f"^{option}='fp8'.*bfloat16"):
        Teacher(tiny_retinanet(), None, **{option: "fp8"})


def damaged_files(tmp_path, checkpoint: str) -> dict[str, tuple[str, dict, list[str]]]:
    """{what: (path, options of the teacher, parts of the message)}"""
    whole = open(checkpoint, "rb").read()
    state = torch.load(checkpoint, weights_only=True)["model"]
    files = {}

    def save(name: str, content) -> str:
        path = str(tmp_path / name)
        torch.save(content, path)
        return path

    files["missing"] = (str(tmp_path / "none.pth"), {}, ["none.pth does not exist"])
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(whole[: len(whole) // 2])
    files["truncated"] = (str(truncated), {}, ["truncated.pth", "could not be read", "incomplete"])
    text = tmp_path / "text.pth"
    text.write_text("version https://git-lfs.github.com/spec/v1")
    files["not a checkpoint"] = (str(text), {}, ["text.pth", "could not be read"])
    fcos = save("fcos.pth", {"model": tiny_fcos().state_dict()})
    files["another architecture"] = (
        fcos, {}, ["fcos.pth does not fit RetinaNet", "unexpected", "head.ctrness.weight"],
    )  # fmt: skip
    files["another class count"] = (
        checkpoint,
        {"num_classes": 9},
        ["of another shape", "cls_score.weight: expected (54, 16, 3, 3), found (24, 16, 3, 3)"],
    )
    files["other levels"] = (
        save("p7.pth", {"model": tiny_retinanet(num_levels=5).state_dict()}),
        {},
        ["p7.pth", "unexpected", "backbone.top_block.p6.weight"],
    )
    files["not finite"] = (
        save("nan.pth", {**state, "head.cls_score.bias": state["head.cls_score.bias"] / 0}),
        {},
        ["nan.pth", "not finite", "head.cls_score.bias"],
    )
    files["no weights"] = (save("cfg.pth", {"model": {"a": 1}}), {}, ["holds no weights", "'a'"])
    files["another normalisation"] = (
        save("rgb.pth", {**state, "pixel_mean": torch.tensor([1.0, 2.0, 3.0])}),
        {},
        ["rgb.pth", "pixel_mean=[1.0, 2.0, 3.0]"],
    )
    with open(tmp_path / "code.pkl", "wb") as file:
        pickle.dump({"model": print}, file)
    files["code"] = (str(tmp_path / "code.pkl"), {}, ["builtins.print is not allowed"])
    return files


@pytest.mark.parametrize(
    "what",
    [
        "missing", "truncated", "not a checkpoint", "another architecture", "another class count",
        "other levels", "not finite", "no weights", "another normalisation", "code",
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_stops_with_file_expected_and_found(
    tmp_path, checkpoint, what
):
    path, options, parts = damaged_files(tmp_path, checkpoint)[what]
    teacher = Teacher(tiny_retinanet(**options), path)
    with pytest.raises(CheckpointError) as error:
        teacher.load()
    for part in parts:
        assert part in str(error.value)
    assert not teacher.loaded


def test_level_strides_that_differ_name_the_teachers_file(checkpoint):
    with pytest.raises(ValueError, match=r"teacher.pth.*level strides \[8, 16, 32\]"):
        distiller(checkpoint, num_levels=5)


def test_detectron2s_zoo_files_and_checkpoints_of_runs_are_read(tmp_path):
    model = tiny_retinanet(seed=3)
    state = model.state_dict()
    arrays = {key: value.numpy() for key, value in state.items()}
    arrays["anchor_generator.cell_anchors.0"] = np.zeros((6, 4), np.float32)
    arrays["pixel_mean"] = model.pixel_mean.numpy()
    with open(tmp_path / "zoo.pkl", "wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, file)
    run_state = {f"module.{key}": value for key, value in state.items()}
    run_state["module.kd.mgd.generator.weight"] = torch.zeros(2)
    torch.save({"model": run_state}, tmp_path / "run.pth")
    torch.save(state, tmp_path / "bare.pth")
    for name in ("zoo.pkl", "run.pth", "bare.pth"):
        teacher = Teacher(tiny_retinanet(), str(tmp_path / name))
        teacher.load()
        loaded = teacher.model.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_its_assigner_takes_the_students_ground_truth_whatever_its_classes():
    inputs = batch()
    for num_classes, build in ((4, tiny_ddod), (7, tiny_ddod), (7, tiny_retinanet)):
        student, model = tiny_fcos(), build(seed=1, num_classes=num_classes)
        teacher = Teacher(model, None)
        dense = run(teacher, student, inputs)
        truth = student.ground_truth(inputs)
        classes = counterparts(correspondence(student, model, {}), student)
        targets = teacher.assign(dense, truth, classes)
        assert targets.foreground.any()
        labels = set(targets.labels[targets.foreground].tolist())
        classes = {label for image in truth for label in image.gt_classes.tolist()}
        assert labels <= (classes if num_classes == 4 else {0})
        count = sum(max(n, 1) for n in targets.foreground.sum(dim=1).tolist())
        assert targets.normalizer == count
        if num_classes == 4:
            assert torch.equal(targets.labels, model.targets(dense, truth).labels)


def test_its_assigner_looks_at_the_scores_of_its_own_class_of_that_name():
    names = ["a", "b", "c", "d"]
    student, inputs = tiny_retinanet(class_names=names), batch()
    teacher = Teacher(tiny_ddod(seed=1, class_names=names[::-1]), None)
    truth = student.ground_truth(inputs)
    dense = run(teacher, student, inputs)
    classes = counterparts(correspondence(student, teacher.model, {}), student)
    found = teacher.assign(dense, truth, classes)
    for image in truth:
        image.gt_classes = 3 - image.gt_classes
    expected = teacher.assign(dense, truth)
    assert torch.equal(found.labels, expected.labels) and found.foreground.any()


@pytest.mark.parametrize("config", [retinanet_config, fcos_config, atss_config, gfl_config])
def test_a_model_that_was_never_trained_is_no_teacher_without_a_word(config, caplog):
    model = from_detectron2(config()) if config is retinanet_config else config()
    with caplog.at_level("WARNING"):
        Teacher(randomized(instantiate(model)), None)
        assert not caplog.records
        Teacher(instantiate(model), None)
    assert "the student would learn from noise" in caplog.text
