"""Methods by name, with the options of the project's configs."""

import pytest

from dense_kd import BCKD, LD
from dense_kd.pipeline.errors import PipelineError
from dense_kd.pipeline.methods import choose_methods, methods_by_name


def test_a_method_has_the_options_of_its_main_config_for_the_detector():
    chosen = choose_methods("BCKD", "gfl", small=False)
    assert chosen.options == {"bckd": (BCKD, {"cls_weight": 1.0, "loc_weight": 4.0})}
    assert chosen.origins["bckd"].startswith("as bckd/gfl_")


def test_a_small_student_has_those_of_the_quickstart():
    chosen = choose_methods("bckd", "gfl", small=True)
    assert chosen.options["bckd"][1] == {"cls_weight": 4.0, "loc_weight": 4.0}


def test_a_detector_without_a_config_has_the_defaults():
    chosen = choose_methods("bckd", "atss", small=False)
    assert (chosen.options, chosen.origins) == ({"bckd": (BCKD, {})}, {"bckd": "its defaults"})


@pytest.mark.parametrize("name", ["tid", "fgfi"])
def test_options_for_features_are_those_of_another_detector_where_it_has_no_config(name):
    chosen, gfl = (choose_methods(name, of, small=False) for of in ("fcos", "gfl"))
    assert chosen == gfl and chosen.options[name][1]


def test_what_the_config_sets_in_the_distiller_is_taken_over():
    assert choose_methods("pgd", "atss", small=False).flags == {"init_student": True}


@pytest.mark.parametrize(("name", "usual"), [("fgfi", 400), ("frs", 500)])
def test_a_warm_up_that_would_be_all_of_the_training_is_a_tenth_of_it(name, usual):
    chosen = choose_methods(name, "gfl", small=True)
    fitted = chosen.fitted(usual)
    (kind, options), (_, given) = fitted.options[name], chosen.options[name]
    assert options == {**given, "warmup_iters": usual // 10}
    assert kind(**options).warmup_factor(usual - 1) == 1
    assert fitted.origins[name].endswith(
        f"but warmup_iters: a tenth of the training, 500 at most; {usual} would be all of it"
    )
    assert chosen.fitted(usual + 1) == chosen
    assert choose_methods("pkd", "gfl", small=True).fitted(1).options["pkd"][1].keys() == {"weight"}


def test_several_methods_are_joined():
    chosen = choose_methods("bckd+ld", "gfl", small=False)
    assert [c for c, _ in chosen.options.values()] == [BCKD, LD]


@pytest.mark.parametrize("small", [True, False])
def test_every_method_is_found(small):
    for name in methods_by_name():
        assert list(choose_methods(name, "gfl", small).options) == [name]


@pytest.mark.parametrize(
    "text, said",
    [
        ("bkcd", "did you mean bckd"),
        ("bckd+bckd", "twice"),
        ("dsi", "network that only a config can give; write one as configs/quickstart/dsi.py"),
        ("fromteacher", "only a config can give; write one as configs/quickstart/two_teachers.py"),
        ("", "there is bckd, cankd"),
    ],
)
def test_a_name_that_is_none_is_refused_with_what_there_is(text, said):
    with pytest.raises(PipelineError, match=said):
        choose_methods(text, "gfl", small=False)
