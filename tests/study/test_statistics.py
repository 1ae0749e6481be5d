"""Student's t, and means of paired differences."""

from __future__ import annotations

import math

import pytest

from dense_kd.study import StudyError
from dense_kd.study.evidence.statistics import gain, mean_ranks, ranks, t_cdf, t_quantile

# Of printed tables: {degrees of freedom: t(0.975)}, and t(0.95) and t(0.995) of some.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045}


@pytest.mark.parametrize("freedom, value", TABLE.items())
def test_quantiles_are_those_of_the_tables(freedom, value):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)


def test_quantiles_of_other_probabilities_and_of_many_degrees():
    assert t_quantile(0.95, 4) == pytest.approx(2.132, abs=5e-4)
    assert t_quantile(0.995, 4) == pytest.approx(4.604, abs=5e-4)
    assert t_quantile(0.975, 1000) == pytest.approx(1.962, abs=5e-4)
    assert t_quantile(0.5, 7) == 0
    assert t_quantile(0.1, 3) == -t_quantile(0.9, 3)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_with_one_and_two_degrees_they_are_the_closed_forms(probability):
    assert t_quantile(probability, 1) == pytest.approx(
        math.tan(math.pi * (probability - 0.5)), rel=1e-12
    )
    a = 4 * probability * (1 - probability)
    closed = 2 * (probability - 0.5) * math.sqrt(2 / a)
    assert t_quantile(probability, 2) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 11])
def test_the_distribution_is_the_integral_of_its_density(freedom):
    constant = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    constant /= math.sqrt(freedom * math.pi)
    steps, end = 2000, 1.7
    inner = [(1 + (end * (i + 0.5) / steps) ** 2 / freedom) ** (-(freedom + 1) / 2)
             for i in range(steps)]  # fmt: skip
    assert t_cdf(end, freedom) == pytest.approx(0.5 + constant * sum(inner) * end / steps, abs=1e-7)
    assert t_cdf(-end, freedom) == pytest.approx(1 - t_cdf(end, freedom), abs=1e-15)


def test_a_gain_has_the_interval_worked_by_hand():
    found = gain([1.0, 2.0, 3.0])  # s = 1, t = 4.303
    assert found.mean == 2 and found.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(4 - found.low)
    assert found.verdict == "not shown"
    assert gain([2.0, 2.1, 2.2]).verdict == "gain"
    assert gain([-2.0, -2.1, -2.2]).verdict == "harm"


def test_one_difference_has_no_interval_and_shows_nothing():
    found = gain([5.0])
    assert (found.mean, found.low, found.high, found.verdict) == (5.0, None, None, "not shown")


def test_no_difference_and_wrong_arguments_are_errors():
    with pytest.raises(StudyError, match="no difference"):
        gain([])
    with pytest.raises(StudyError, match="probability=1"):
        t_quantile(1, 3)
    with pytest.raises(StudyError, match="freedom=0"):
        t_cdf(0.0, 0)


def test_ranks_share_the_places_of_equal_values():
    assert ranks({"a": 3.0, "b": 1.0, "c": 3.0, "d": 0.0}) == {"a": 1.5, "b": 3, "c": 1.5, "d": 4}


def test_the_mean_rank_is_over_pairs_with_all_of_the_methods():
    pairs = [{"a": 3.0, "b": 1.0, "c": 2.0}, {"a": 0.0, "b": 1.0}]
    assert mean_ranks(pairs) == {"a": 1.5, "b": 1.5}
    assert mean_ranks([]) == {}
