"""The laws of the order of jobs, in worlds that Hypothesis makes up."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.properties.order_laws import FIXED_LAWS, LAWS, Law, world_of


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(st.randoms(use_true_random=False))
def test_laws(law: Law, chance: random.Random) -> None:
    law(world_of(chance))


@pytest.mark.parametrize("law", FIXED_LAWS, ids=lambda law: law.__name__)
def test_laws_of_one_world(law: Law) -> None:
    law(world_of(random.Random(1)))
