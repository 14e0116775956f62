"""Fleets with clusters: the laws of where work may be, on many lives."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.checkers import check
from tests.properties.cluster_laws import LAWS, Life


@settings(max_examples=15)
@given(seed=st.integers(0, 1 << 32))
def test_all_laws_hold(seed: int) -> None:
    life = Life(seed)
    for law in LAWS:
        law(life)
    check(life.home)
