"""Training with a teacher's cache is training without one, for every method and detector."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.utils.events import EventStorage

from dense_kd import BCKD, FGD, PKD, CrossKD, Distiller, KDMethod, MethodSet, Teacher
from dense_kd.methods import Needs
from dense_kd.teacher_cache import Fingerprint
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.method_cases import VARIANTS, build, every_method, images_with, teacher_of

EXACT = {"rtol": 0, "atol": 0}
ROUNDED = {"rtol": 1e-4, "atol": 1e-5}
"""Of batches that were put together: convolutions of fewer images may round otherwise."""
IMAGES = images_with([[4, 4, 40, 40]], [])


def with_cache(model: Distiller, cache: str = "memory", **options) -> Distiller:
    """The same model, whose teacher has a cache."""
    old = _teacher(model)
    new = Teacher(old.model, None, cache=cache, **options)
    holder = model if old is model.teacher else model.kd.feature
    holder.teacher = new
    return model


def _teacher(model: Distiller) -> Teacher:
    return teacher_of(model) if hasattr(model.kd, "feature") else model.teacher


def step(model: Distiller, inputs) -> tuple[dict, list]:
    """The losses and gradients of a step that leaves the model as it was."""
    twin = copy.deepcopy(model)
    torch.manual_seed(0)
    losses = twin(inputs)
    sum(losses.values()).backward()
    return losses, [p.grad for p in twin.parameters() if p.grad is not None]


def ran(model: Distiller, inputs=IMAGES) -> int:
    """On how many images the teacher's backbone is run in a step."""
    counts = []
    hook = _teacher(model).model.backbone.register_forward_pre_hook(
        lambda _, given: counts.append(len(given[0]))
    )
    model(inputs)
    hook.remove()
    return sum(counts)


def assert_same(found, expected, **tolerance) -> None:
    """Losses in every bit, unless told otherwise; gradients differ in the last from step to step,
    without a cache, too."""
    losses, gradients = (list(of) for of in zip(found, expected))
    assert list(losses[0]) == list(losses[1]) and len(gradients[0]) == len(gradients[1])
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], **(tolerance or EXACT))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, **{"rtol": 1e-4, "atol": 1e-4, **tolerance})


@every_method
def test_a_hit_gives_the_losses_and_gradients_of_a_step_without_a_cache(name, variant):
    model = build(name, variant)
    expected = step(model, IMAGES)
    with_cache(model)
    first, again = step(model, IMAGES), step(model, IMAGES)
    assert_same(first, expected)
    assert_same(again, expected)
    assert ran(model) == 0
    assert teacher_of(model).cache.found == 4


@every_method
def test_a_method_declares_whether_it_reads_features(name, variant):
    """What it does not read is refused in every pass of a cache."""
    model = with_cache(build(name, variant))
    method = getattr(model.kd.feature, "method", model.kd.feature)  # or the one inside
    passes = []
    method.register_forward_pre_hook(lambda _, given: passes.append(given[1]))
    for _ in range(2):
        model(IMAGES)
    assert [dense.has_features for dense in passes] == [method.needs.features] * 2
    if not method.needs.features:
        for dense in passes:
            with pytest.raises(LookupError, match=r"without features.*Needs\(features=True\)"):
                dense.features[0]
            sizes = [tap[0].shape[-2:] for tap in dense.taps.values()]
            assert all(size == dense.map_sizes[0] for size in sizes)


def test_features_are_read_by_these_methods_only():
    without = {" ".join((n, v)).strip() for n, v in VARIANTS if not build(n, v).kd.reads_features}
    assert {"BCKD", "CrossKD quality", "KD", "LD", "PGD", "PKD towers"} <= without
    assert not without & {
        "CanKD",
        "FGD",
        "MGD",
        "PKD",
        "TID",
        "FRS",
        "GIBox",
        "FitNet",
        "FKD",
        "DeFeat",
    }


DETECTORS = [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl, tiny_ddod, tiny_autoassign]


@pytest.mark.parametrize("detector", DETECTORS)
def test_any_detector_is_kept(detector):
    methods = {"bckd": BCKD(), "crosskd": CrossKD(depth=1), "fgd": FGD()}
    model = distill(detector(), detector(seed=1), **methods)
    expected = step(model, batch())
    with_cache(model)
    for _ in range(2):
        assert_same(step(model, batch()), expected)
    assert model.teacher.cache.found == 2


def test_batches_are_found_by_the_batch_as_they_were_computed(tmp_path):
    methods = {"bckd": BCKD(), "crosskd": CrossKD(depth=1), "fgd": FGD()}
    model = distill(tiny_gfl(), tiny_gfl(seed=1), **methods)
    images = images_with([[4, 4, 40, 40]], [[8, 8, 60, 60]], [])
    others = images[:2], [images[1], images[0], images[2]]
    expected = [step(model, each) for each in (images, *others)]
    with_cache(model, str(tmp_path), cache_by="batch")
    for asked, found in ((8, 0), (16, 8)):
        for each, of_each in zip((images, *others), expected):
            assert_same(step(model, each), of_each)
        cache = model.teacher.cache
        assert (cache.asked, cache.found) == (asked, found)
    assert ran(model, images) == 0 and model.what_is_lost() == []
    assert cache.store.count == 3 * 4  # class tower, box tower, predictions, features


def test_a_batch_of_known_and_new_images_is_that_of_all():
    model = distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), fgd=FGD())
    images = images_with([[4, 4, 40, 40]], [[8, 8, 60, 60]], [])
    expected = step(model, images)
    with_cache(model)
    step(model, images[1:2])
    assert_same(step(model, images), expected, **ROUNDED)
    assert (model.teacher.cache.asked, model.teacher.cache.found) == (4, 1)
    assert_same(step(model, images), expected, **ROUNDED)
    assert (model.teacher.cache.asked, model.teacher.cache.found) == (7, 4)


def test_a_teacher_of_other_images_is_shown_them_and_no_random_number_is_drawn():
    teacher = tiny_fcos(seed=1, input_format="RGB", pixel_mean=[127.5] * 3, pixel_std=[64.0] * 3)
    model = distill(tiny_fcos(), teacher, bckd=BCKD(), fgd=FGD())
    expected = step(model, IMAGES)
    drawn = torch.get_rng_state()
    with_cache(model)
    for inputs in (IMAGES[1:], IMAGES, IMAGES):
        found = step(model, inputs)
        assert torch.equal(torch.get_rng_state(), drawn)
    assert_same(found, expected, **ROUNDED)
    assert model.teacher.cache.found == 3


def test_float16_takes_half_the_place_and_gives_losses_to_its_precision():
    exact = with_cache(distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), fgd=FGD()))
    half = with_cache(copy.deepcopy(exact), cache_precision="float16")
    expected = step(exact, IMAGES)
    step(half, IMAGES)
    assert_same(step(half, IMAGES), expected, rtol=5e-3, atol=1e-3)
    ratio = half.teacher.cache.store.nbytes / exact.teacher.cache.store.nbytes
    assert ratio == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("by", ["image", "batch"])
def test_an_exact_run_does_not_use_what_another_has_rounded_and_replaces_it(tmp_path, caplog, by):
    def model(**options) -> Distiller:
        distiller = distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), fgd=FGD())
        return with_cache(distiller, str(tmp_path), cache_by=by, **options)

    expected = step(distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), fgd=FGD()), IMAGES)
    step(model(cache_precision="float16"), IMAGES)
    rounded = model().teacher.cache.store.nbytes
    exact = model()
    assert_same(step(exact, IMAGES), expected)
    assert exact.teacher.cache.found == 0
    assert exact.teacher.cache.store.nbytes > 1.8 * rounded  # in the same files
    assert caplog.text.count("This run has cache_precision=exact, so they are not used") == 1
    for again in (exact, model(), model(cache_precision="float16")):
        assert_same(step(again, IMAGES), expected)
        assert again.teacher.cache.found == 2
    assert caplog.text.count("so they are not used") == 1


def test_a_bfloat16_teacher_is_kept_in_its_own_bits():
    model = distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD(), precision="bfloat16")
    expected = step(model, IMAGES)
    with_cache(model, precision="bfloat16")
    for _ in range(2):
        assert_same(step(model, IMAGES), expected)
    full = with_cache(distill(tiny_gfl(), tiny_gfl(seed=1), bckd=BCKD()))
    full(IMAGES)
    assert model.teacher.cache.store.nbytes < 0.6 * full.teacher.cache.store.nbytes


def test_the_order_of_channels_and_folded_norms_stay():
    model = distill(tiny_fcos(norm="BN"), tiny_fcos(norm="BN", seed=1), PKD())
    expected = step(model, IMAGES)
    with_cache(model, fold_norms=True, channels_last=True)
    for _ in range(2):
        assert_same(step(model, IMAGES), expected, rtol=1e-3, atol=1e-5)
    passes = []
    model.kd.register_forward_pre_hook(lambda _, given: passes.append(given[1]))
    model(IMAGES)
    assert passes[0].features[0].is_contiguous(memory_format=torch.channels_last)


def padded() -> list:
    """With an image that is wider than the others."""
    (wide,) = images_with([])
    wide["image"] = torch.nn.functional.pad(wide["image"], (0, 64))
    return [*IMAGES, wide]


OTHERS = {
    "mirrored": [{**x, "image": x["image"].flip(2)} for x in IMAGES],
    "brighter": [{**x, "image": x["image"] // 2} for x in IMAGES],
    "padded": padded(),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_pixels_and_other_padding_are_other_entries(what):
    model = distill(tiny_gfl(), tiny_gfl(seed=1), BCKD())
    inputs = OTHERS[what]
    expected = step(model, inputs)
    with_cache(model)
    step(model, IMAGES)
    assert_same(step(model, inputs), expected)
    assert model.teacher.cache.found == 0


def test_other_weights_precisions_and_formats_are_other_entries(tmp_path):
    def model(**options) -> Distiller:
        seed = options.pop("seed", 1)
        return with_cache(
            distill(tiny_gfl(), tiny_gfl(seed=seed), BCKD()), str(tmp_path), **options
        )

    first = model()
    assert ran(first) == 2
    assert ran(model()) == 0  # as another process
    for other in (
        model(seed=2),
        model(precision="bfloat16"),
        model(head_precision="bfloat16"),
        model(channels_last=True),
    ):
        assert ran(other) == 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ran(first) == 0  # it ran in that precision before
    with torch.no_grad():
        next(first.teacher.model.backbone.parameters()).mul_(2)
    assert ran(first) == 2


@pytest.mark.skipif(not hasattr(torch.nn.Module, "compile"), reason="torch before 2.2")
def test_a_compiled_teacher_which_rounds_otherwise_has_entries_of_its_own():
    plain, compiled = tiny_gfl(), tiny_gfl()
    assert Fingerprint().of(plain) == Fingerprint().of(compiled)
    compiled.backbone.compile()
    assert Fingerprint().of(plain) != Fingerprint().of(compiled)


def test_methods_that_read_other_parts_share_what_both_read(tmp_path):
    def model(**methods) -> Distiller:
        return with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), **methods), str(tmp_path))

    assert ran(model(bckd=BCKD(), fgd=FGD())) == 2
    assert ran(model(fgd=FGD())) == ran(model(bckd=BCKD())) == 0
    assert ran(model(crosskd=CrossKD(depth=1))) == 2


class Nothing(KDMethod):
    """Reads nothing of the teacher."""

    needs = Needs(features=False, predictions=False)

    def forward(self, student, teacher, step):
        return {"loss_nothing": 0 * student.logits[0].sum()}


def test_a_method_that_reads_nothing_of_the_teacher_runs():
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), Nothing()))
    for _ in range(2):
        model(IMAGES)


def test_the_teachers_targets_and_its_assigner_work_with_what_was_kept():
    model = Distiller(
        student=tiny_ddod(),
        teacher=Teacher(tiny_ddod(seed=1), None),
        methods=MethodSet(crosskd=CrossKD(depth=1), fgd=FGD()),
        targets_from_teacher=True,
    )
    expected = step(model, batch())
    with_cache(model)
    for _ in range(2):
        assert_same(step(model, batch()), expected)
    other = distill(tiny_gfl(), tiny_atss(seed=1, num_classes=7), CrossKD(depth=1))
    expected = step(other, batch())
    with_cache(other)
    for _ in range(2):
        assert_same(step(other, batch()), expected)


def test_what_a_method_does_to_a_pass_is_not_kept():
    class Spoils(FGD):
        def forward(self, student, teacher, step):
            losses = super().forward(student, teacher, step)
            for level in teacher.features:
                level.zero_()
            return losses

    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), Spoils()))
    losses = [model(IMAGES[:1])["kd_feature_loss_fg"] for _ in range(3)]
    assert losses[0] > 0 and losses == losses[:1] * 3


def test_looking_on_asks_for_what_the_methods_do_not_read():
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()))
    model(IMAGES)
    model.kd.looked_at = True
    assert ran(model) == 2
    assert ran(model) == 0
    model.kd.looked_at = False
    assert ran(model) == 0


def test_it_is_in_no_copy_of_the_model_and_in_no_pickle():
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()))
    model(IMAGES)
    held = model.teacher.cache.store.nbytes
    twin = copy.deepcopy(model)
    assert twin.teacher is model.teacher
    loaded = pickle.loads(pickle.dumps(model.teacher.cache))
    assert loaded.store.nbytes == 0 < held and loaded.max_bytes == 4e9
    assert not any("cache" in key for key in model.state_dict())


def test_passes_outside_of_training_are_not_kept():
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()))
    model.teacher.detect(IMAGES, "BGR")
    model.teacher.run(IMAGES, model.student.preprocess_image(IMAGES), model.student)
    assert model.teacher.cache.asked == 0 and model.teacher.cache.store.nbytes == 0


def test_the_share_of_hits_is_in_the_metrics_and_in_the_log(caplog, monkeypatch):
    monkeypatch.setattr("dense_kd.teacher_cache.cache._FIRST_REPORT", 4)
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()))
    with EventStorage() as storage, caplog.at_level("INFO", "dense_kd"):
        for inputs, share in ((IMAGES[:1], 0.0), (IMAGES, 0.5), (IMAGES, 1.0)):
            model(inputs)
            assert storage.latest()["teacher_cache/hits"][0] == share
    assert "had 3 of 5 images (60.0 %); it holds 2 entries" in caplog.text
    assert "had 3 of 5 images (60.0 %)" in model.teacher.cache.report()


def test_a_cache_without_any_hit_is_warned_of_once(caplog, monkeypatch):
    for name, value in (("_FIRST_REPORT", 2), ("_MANY", 4)):
        monkeypatch.setattr(f"dense_kd.teacher_cache.cache.{name}", value)
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()))
    for number in range(8):
        model([{**x, "image": x["image"] + number} for x in IMAGES[:1]])
    warnings = [r.message for r in caplog.records if "none of 4 images" in r.message]
    assert len(warnings) == 1 and "other than flips" in warnings[0]


def test_what_does_not_fit_is_not_kept_which_is_said_once(caplog):
    model = with_cache(distill(tiny_fcos(), tiny_fcos(seed=1), FGD()), cache_gb=1.2e-5)
    inputs = [{**IMAGES[0], "image": IMAGES[0]["image"] + number} for number in range(3)]
    assert [ran(model, [each]) for each in (*inputs, *inputs)] == [1, 1, 1, 0, 0, 1]
    cache = model.teacher.cache
    assert cache.store.nbytes <= 1.2e4
    assert caplog.text.count("is full at 1.2e-05 GB") == 1
    assert "is full" in cache.report()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache": ""}, "cache='': expected 'memory', a folder, or None"),
        ({"cache": True}, "cache=True: expected 'memory', a folder, or None"),
        ({"cache": "memory", "cache_gb": 0}, "cache_gb=0: expected a number above 0"),
        ({"cache": "memory", "cache_precision": "int8"}, r"cache_precision='int8': expected one"),
        ({"cache_gb": 8.0}, "cache_gb=8.0 does nothing with cache=None; leave it at 4.0"),
        ({"cache_precision": "float16"}, "does nothing with cache=None"),
        ({"cache_by": "batch"}, "cache_by='batch' does nothing with cache=None"),
        ({"cache": "memory", "cache_by": "epoch"}, "cache_by='epoch': expected one of"),
        ({"cache": "memory", "cache_by": "batch"}, "no batch comes again; give a folder"),
    ],
)
def test_options_that_cannot_be_say_what_is_expected(options, said):
    with pytest.raises(ValueError, match=said):
        Teacher(tiny_fcos(), None, **options)
