"""Sketches: within their error of the true quantile, and addition and difference are exact."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.model.sketch import ERROR, bucket, merge, quantile, since

VALUES = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=200)


def _sketch(values: list[float]) -> dict[int, int]:
    return dict(Counter(map(bucket, values)))


@given(VALUES, st.integers(1, 1000))
def test_a_quantile_is_within_its_error_of_the_true_one(values: list[float], per_mille: int) -> None:
    ordered = sorted(values)
    true = ordered[max(-(-len(ordered) * per_mille // 1000), 1) - 1]
    found = quantile(_sketch(values), per_mille)
    assert found == pytest.approx(true, rel=ERROR * 1.000_001)


@given(VALUES, VALUES)
def test_merging_is_as_if_all_values_had_gone_to_one(left: list[float], right: list[float]) -> None:
    assert merge(_sketch(left), _sketch(right)) == _sketch(left + right)
    assert since(_sketch(left + right), _sketch(left)) == _sketch(right)


def test_small_values_count_as_one_and_nothing_has_no_quantile() -> None:
    assert [bucket(value) for value in (-5, 0, 0.3, 1)] == [0, 0, 0, 0]
    assert quantile(_sketch([0.1, 0.2]), 500) == 1.0
    assert quantile({}, 500) is None
    assert quantile({3: 0}, 500) is None


def test_what_came_since_a_sketch_that_was_begun_anew_is_never_negative() -> None:
    assert since({1: 2}, {1: 5, 2: 1}) == {}


def test_beyond_all_values_is_the_largest() -> None:
    sketch = _sketch([2.0, 900.0])
    assert quantile(sketch, 2_000) == quantile(sketch, 1_000)
