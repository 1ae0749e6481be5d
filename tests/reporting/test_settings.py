"""What configs have in common."""

from dense_kd.reporting.settings import ABSENT, compare_settings


def test_settings_are_told_apart_by_name_and_the_rest_is_common():
    first = {
        "train": {"max_iter": 10, "ddp": {}},
        "lr": 0.1,
        "stages": [{"width": 1}, {"width": 2}],
    }
    second = {
        "train": {"max_iter": 20, "ddp": {}},
        "lr": 0.1,
        "stages": [{"width": 1}, {"width": 3}],
    }
    different, common = compare_settings([first, second])
    assert different == {"train.max_iter": ["10", "20"], "stages.1.width": ["2", "3"]}
    assert common == {"train.ddp": "dict()", "lr": "0.1", "stages.0.width": "1"}


def test_a_part_that_some_lack_is_one_setting_while_its_text_is_short():
    methods = {"kd": {"_target_": "dense_kd.KD", "weight": 2}}
    teacher = {"model": {f"entry{i}": "long" * 9 for i in range(9)}, "weights": "t.pth"}
    different, _ = compare_settings([{}, {"d": {"methods": methods, "teacher": teacher}}])
    assert [*different] == ["d.methods", "d.teacher.model", "d.teacher.weights"]
    assert different["d.methods"] == [ABSENT, "dict(kd=KD(weight=2))"]


def test_a_part_that_some_lack_and_that_differs_is_shown_where_it_does():
    different, common = compare_settings([{}, {"kd": {"a": 1, "b": 2}}, {"kd": {"a": 1, "b": 3}}])
    assert different == {"kd.a": [ABSENT, "1", "1"], "kd.b": [ABSENT, "2", "3"]}
    assert common == {}


def test_kinds_are_told_apart_and_one_config_is_all_common():
    assert compare_settings([{"a": True}, {"a": 1}])[0] == {"a": ["True", "1"]}
    assert compare_settings([{"a": {"b": [1, 2]}}]) == ({}, {"a.b": "[1, 2]"})
