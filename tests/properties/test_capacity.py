"""The laws of `decide.capacity` hold for any service and any arrivals."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.properties.capacity_laws import LAWS, Play, service

SERVICES = st.builds(
    service, st.integers(1, 60), st.sampled_from((0, 1, 10, 60)), st.sampled_from((0, 1, 3)), st.just(20)
)
LOADS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 10), st.integers(1, 15)), min_size=1, max_size=5
).map(lambda runs: [(load, ready) for load, ready, times in runs for _ in range(times)])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(play=st.builds(Play, SERVICES, LOADS))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_law(law: Callable[[Play], None], play: Play) -> None:
    law(play)
