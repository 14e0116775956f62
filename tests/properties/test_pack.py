"""Laws of packing, for any nodes and pods. `tests/planted/test_planted_pack.py` shows that each law bites."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.pack_laws import Life, broken, lives, told

from steersman.decide.pack_stock import cutting_stock, residual_worth

LIVES = 150
TOLERANCE = 1e-6


@settings(max_examples=LIVES, deadline=None)
@given(lives())
def test_capacity_room_and_gangs(life: Life) -> None:
    assert list(broken(life)) == []


@settings(max_examples=LIVES, deadline=None)
@given(lives())
def test_the_same_life_is_told_the_same_also_from_its_exported_state(life: Life) -> None:
    assert told(life) == told(life) == told(life, restart=True)


@settings(max_examples=LIVES, deadline=None)
@given(lives())
def test_the_order_of_nodes_does_not_matter(life: Life) -> None:
    assert told(life) == told(life._replace(nodes=life.nodes[::-1]))


@settings(max_examples=LIVES, deadline=None)
@given(st.dictionaries(st.integers(1, 20), st.integers(1, 50), min_size=1, max_size=6))
def test_the_dual_is_one_and_rises(demand: dict[int, int]) -> None:
    """Feasible: no filling of a GPU is worth more than a GPU; superadditive: two rests never beat one."""
    sizes = sorted(demand)
    value = cutting_stock(sizes, [float(demand[size]) for size in sizes], 20)
    assert value[0] == 0
    assert abs(value[20] - 1) < TOLERANCE
    for one in range(21):
        for other in range(21 - one):
            assert value[one] + value[other] <= value[one + other] + TOLERANCE


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(1, 999), st.integers(1, 50), max_size=6), st.floats(0.01, 3))
def test_a_larger_rest_is_worth_no_less(shares: dict[int, int], scale: float) -> None:
    worth = residual_worth(shares, scale, {})
    assert all(worth[rest] <= worth[rest + 1] + TOLERANCE for rest in range(1000))
