"""Every option of every method refuses what it cannot mean."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from dense_kd.yacs_config import METHODS

WRONG: dict[type, tuple[Any, ...]] = {
    float: (-1.0, -math.inf, math.inf, math.nan, "much", True, None, [1.0]),
    int: (-1, 0.5, math.nan, math.inf, "many", True, [1]),
    bool: ("false", "no", 0, 1, None, 0.5),
    str: ("misspelt", "", 1, None, True),
    tuple: ("neck", "0", ("misspelt",), (0.5,), 3, None),
}
"""{type of a default: values that no option of such a default may take}."""
UNCHECKED = ("class_map",)
"""Options that are looked at with both detectors, see ``test_class_maps.py``."""
CASES = [
    pytest.param(name, option, value, id=f"{name}.{option}={value!r}")
    for name, method in METHODS.items()
    for option, parameter in inspect.signature(method).parameters.items()
    if option not in UNCHECKED
    for value in WRONG[float if parameter.default is None else type(parameter.default)]
    if value is not None or "None" not in parameter.annotation
]


@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_what_an_option_cannot_mean_is_an_error_that_names_option_and_value(name, option, value):
    with pytest.raises(ValueError, match=option) as error:
        METHODS[name](**{option: value})
    shown = {f"{option}={value!r}", f"{option}={value}"}
    assert any(text in str(error.value) for text in shown) and "expected" in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_the_default_of_every_option_may_be_given(name):
    parameters = inspect.signature(METHODS[name]).parameters
    METHODS[name](**{option: parameter.default for option, parameter in parameters.items()})
