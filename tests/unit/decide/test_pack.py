"""The packer: where pods go, what is learned, and that its state can be taken out and in."""

import random
from itertools import pairwise

import pytest

from steersman.decide import pack, pack_price, pack_stock
from steersman.decide.pack import NodeState, Packer, Placement, State
from steersman.decide.pack_price import Size, model_prices
from steersman.decide.pack_stock import WHOLE, cutting_stock, knapsack, residual_worth, steps_of, unserved
from steersman.decide.pack_value import SPREAD, Key, cost, learn, model_curves, options, phi
from steersman.model.packing import Ask, Basis
from steersman.state import packing

GIB = 1 << 30


def shape(gpus: int = 1, share: int = WHOLE, cpu: int = 1000, models: tuple[str, ...] = ()) -> Ask:
    return Ask(cpu, GIB, gpus, share if gpus else 0, models)


def node(name: str, gpus: int = 2, model: str = "A", cpu: int = 8000) -> NodeState:
    return NodeState(name, model, cpu, 64 * GIB, (WHOLE,) * gpus)


def packer(*nodes: NodeState) -> Packer:
    return Packer(State(nodes=nodes))


def where(found: Placement | None) -> tuple[str, tuple[int, ...]]:
    assert found is not None
    return found.node, found.devices


def test_before_anything_is_learned_it_is_best_fit() -> None:
    one = packer(node("big", 4), node("small", 1))
    assert where(one.place(shape(0))) == ("small", ())
    assert where(one.place(shape(share=600))) == ("small", (0,))
    assert where(one.place(shape(share=400))) == ("small", (0,))
    assert where(one.place(shape(2))) == ("big", (0, 1))
    assert one.place(shape(4)) is None


def test_with_no_arrivals_there_is_nothing_to_learn() -> None:
    assert packer(node("a")).news({}, Basis(), 0, {}) is None


def test_shares_go_where_the_rest_is_smallest_and_among_equals_to_the_first_name() -> None:
    one = packer(node("b", 1), node("a", 1))
    assert where(one.place(shape(share=500))) == ("a", (0,))
    assert where(one.place(shape(share=700))) == ("b", (0,))
    assert where(one.place(shape(share=300))) == ("b", (0,))


def test_a_share_of_each_of_several_gpus() -> None:
    one = packer(node("a", 3))
    assert where(one.place(shape(share=400))) == ("a", (0,))
    assert where(one.place(shape(2, share=500))) == ("a", (0, 1))
    assert where(one.place(shape(2, share=500))) == ("a", (1, 2))
    assert one.place(shape(2, share=600)) is None


def test_models_cpu_and_memory_are_kept_to() -> None:
    one = packer(node("a", model="A"), node("b", model="B", cpu=500))
    assert one.place(shape(models=("B",))) is None
    assert one.place(shape(models=("C",))) is None
    assert where(one.place(shape(models=("B", "A")))) == ("a", (0,))
    assert one.place(Ask(1000, 1 << 50, 1, WHOLE)) is None
    assert where(one.place(shape(cpu=500, models=("B",)))) == ("b", (0,))


def test_what_is_no_shape_is_no_pod() -> None:
    for wrong in (Ask(1, 1, 0, 5), Ask(1, 1, 1, 0), Ask(1, 1, 1, WHOLE + 1)):
        with pytest.raises(AssertionError, match="is no shape"):
            packer(node("a")).place(wrong)


def test_release_gives_all_back_once() -> None:
    one = packer(node("a"))
    before = one.export().nodes
    held = [one.place(shape(share=300)), one.place(shape(0)), one.place(shape())]
    for placement in held:
        assert placement is not None
        one.release(placement)
    assert one.export().nodes == before
    assert held[0] is not None
    with pytest.raises(AssertionError, match="released already"):
        one.release(held[0])


def test_nodes_come_and_go() -> None:
    one = packer(node("a", 1))
    one.add_node("c", 8000, 64 * GIB, "A", 1)
    one.add_node("b", 8000, 64 * GIB, "A", 1)
    with pytest.raises(AssertionError, match="there already"):
        one.add_node("b", 1, 1, "A", 1)
    one.remove_node("a")
    assert where(one.place(shape())) == ("b", (0,))
    one.remove_node("c")
    assert one.place(shape()) is None
    assert [each.node for each in one.export().nodes] == ["b"]


def test_a_retry_is_no_arrival() -> None:
    one = packer(node("a"))
    one.place(shape(), first_try=False)
    assert one.export().counts == ()
    one.place(shape())
    one.place(shape(0))
    assert one.export().counts == ((shape(), 1),)


def test_learned_shares_complete_a_gpu() -> None:
    """650 and 350 fill one; best fit puts 350 on the rest of 600, where 50 are lost and a 400 is kept out."""
    one = packer(*(node(f"n{place}", 1, cpu=80_000) for place in range(40)))
    for _ in range(6):
        for share in (600, 400, 650, 350):
            one.place(shape(share=share))
    first, second = one.place(shape(share=600)), one.place(shape(share=650))
    assert first is not None
    assert second is not None
    assert where(one.place(shape(share=350))) == (second.node, second.devices)
    assert where(one.place(shape(share=400))) == (first.node, first.devices)


def test_pods_of_any_model_leave_the_one_that_others_need() -> None:
    one = packer(*(node(f"{model}{place}", 1, model) for model in "AB" for place in range(60)))
    for _ in range(10):
        for models in (("A",), ("A",), ("A",), ()):
            one.place(shape(models=models))
    assert {where(one.place(shape()))[0][0] for _ in range(10)} == {"B"}
    prices = dict(one.export().prices)
    assert prices["A"] > prices["B"] == 0


def test_the_state_taken_out_and_in_decides_alike() -> None:
    dice = random.Random(3)
    nodes = [node(f"n{place}", place % 5, "AB"[place % 2], 20_000) for place in range(30)]
    shapes = [shape(share=share) for share in (100, 250, 330, 500, 800)] + [shape(), shape(2), shape(0)]
    shapes += [shape(models=("A",)), shape(2, share=400)]
    whole, other = packer(*nodes), packer(*nodes)
    held = []
    for _ in range(400):
        wanted = dice.choice(shapes)
        found = whole.place(wanted)
        other = Packer(other.export())
        assert other.place(wanted) == found
        held += [found] if found else []
        if len(held) > 20:
            gone = held.pop(dice.randrange(len(held)))
            whole.release(gone)
            other.release(gone)
    assert whole.export() == other.export()


def test_small_bounds_change_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches that are dropped and rebuilt decide as those that never were."""
    told: list[list[Placement | None]] = []
    for small in (False, True):
        if small:
            for name in ("LANES_MAX", "LOG_MAX", "STALE_MIN"):
                monkeypatch.setattr(pack, name, 2)
        dice = random.Random(5)
        one = packer(*(node(f"n{place}", 4) for place in range(12)))
        held: list[Placement] = []
        told.append([])
        for _ in range(500):
            found = one.place(shape(dice.choice((0, 1, 1, 2)), dice.choice((200, 300, WHOLE)), 100))
            told[-1].append(found)
            held += [found] if found else []
            if len(held) > 15:
                one.release(held.pop(dice.randrange(len(held))))
    assert told[0] == told[1]


def test_the_names_of_a_class_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that goes and comes again leaves no trail, and the smallest name is still first."""
    monkeypatch.setattr(pack, "STALE_MIN", 2)
    equal = pack._Class()
    for name in ("c", "a", "b"):
        equal.add(name)
    for _ in range(50):
        equal.members.remove("b")
        equal.add("b")
    assert len(equal._heap) <= 2 * 3 + 2 + 1
    equal.members.remove("a")
    assert equal.first() == "b"


def test_old_arrivals_fade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MIX_MAX", 100)
    one = packer(node("a", 8, cpu=10**6))
    for _ in range(500):
        one.place(shape(share=100))
    assert sum(count for _, count in one.export().counts) < 200
    one.place(shape(share=900))
    assert (shape(share=900), 1) in one.export().counts


def test_what_is_free_makes_it_learn_again() -> None:
    """Arrivals alone would have it wait for half as many again."""
    one = packer(*(node(f"n{place}", 8, cpu=10**6) for place in range(40)))
    for _ in range(8):
        one.place(shape())
    known = one.export().basis
    for place in range(30):
        one.remove_node(f"n{place}")
    one.place(shape(0))
    assert one.export().basis.free < known.free


# -- values


def test_the_knapsack_and_the_dual_of_tiny_cases() -> None:
    assert knapsack([(2, 3.0), (3, 5.0)], 7)[0] == [0, 0, 3, 5, 6, 8, 10, 11]
    assert cutting_stock([5], [3.0], 10)[5] == pytest.approx(0.5)
    value = cutting_stock([35, 65], [10.0, 10.0], 100)
    assert value[35] + value[65] == pytest.approx(1)
    assert value[34] == 0
    assert all(below <= above for below, above in pairwise(value))


def test_a_size_that_others_leave_room_for_is_worth_nothing() -> None:
    """One 700 to a GPU, and so few 300 that all find room beside: the dual of 300 is 0."""
    value = cutting_stock([3, 7], [1.0, 50.0], 10)
    assert value[3] == pytest.approx(0)
    assert value[7] == pytest.approx(1)
    assert cutting_stock([1, 3, 6], [44.0, 12.0, 31.0], 10)[5:7] == [0, 1]


def test_the_simplex_stops_at_its_bound_and_at_columns_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pack_stock._pivot([[1.0]], [1.0], [1.0], [-1], 0.0)
    monkeypatch.setattr(pack_stock, "PIVOTS_MAX", 1)
    assert cutting_stock([35, 65], [10.0, 10.0], 100)[100] == pytest.approx(1)
    monkeypatch.setattr(pack_stock, "PIVOTS_MAX", 400)
    monkeypatch.setattr(pack_stock, "_pivot", lambda *_: False)
    assert cutting_stock([35, 65], [10.0, 10.0], 100)[100] == pytest.approx(1)


def test_what_open_residuals_leave_to_serve() -> None:
    assert unserved({300: 5.0, 600: 2.0}, {}) == {600: 2.0, 300: 5.0}
    assert unserved({300: 5.0}, {400: 2.0, 350: 1.0, 200: 9.0}) == {300: 2.0}
    assert unserved({300: 1.0, 600: 1.0}, {900: 1.0}) == {}


def test_the_worth_of_a_rest() -> None:
    nothing = residual_worth({}, 1.0, {})
    assert nothing[999] == 0
    assert nothing[WHOLE] == WHOLE
    assert residual_worth({500: 10}, 1.0, {})[500] == pytest.approx(500)
    served = residual_worth({500: 10}, 1.0, {500: 10})
    assert served[499] == 0
    assert served[500] == pytest.approx(50)


def test_more_sizes_than_the_program_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_stock, "SIZES_MAX", 1)
    assert residual_worth({500: 10, 300: 10}, 1.0, {})[300] > 0


def test_steps() -> None:
    steps = steps_of([(5, 1.0), (2, 0.5)])
    assert [steps.at(place) for place in (1, 2, 4, 5, 9)] == [0, 0.5, 0.5, 1.5, 1.5]


def test_ways_on_a_node() -> None:
    key: Key = ("A", 4000, 8 * GIB, 1, (300, 300, 700))
    assert options(shape(cpu=5000), key) == []
    assert options(shape(2), key) == []
    assert [taken for taken, _ in options(shape(share=300), key)] == [300, 700, WHOLE]
    assert options(shape(share=300), key)[0][1][4] == (300, 700)
    assert options(shape(2, share=300), key) == [(SPREAD, ("A", 3000, 7 * GIB, 1, (700,)))]
    assert options(shape(3, share=500), key) == []
    assert cost(shape(3), key, None, None) is None


def test_what_a_node_is_worth() -> None:
    mix = learn(Basis(counts=((shape(), 3), (shape(share=500), 1)), free=8000))
    curves = model_curves(mix, "A")
    assert phi(("A", 4000, 8 * GIB, 2, ()), mix, curves) == pytest.approx(2000)
    assert phi(("A", 0, 8 * GIB, 2, (500,)), mix, curves) == 0
    assert phi(("A", 4000, 8 * GIB, 0, (400,)), mix, curves) == 0
    assert phi(("A", 4000, 8 * GIB, 0, (500,)), mix, curves) > 0


def test_nothing_is_typical_when_no_pod_has_a_gpu() -> None:
    mix = learn(Basis())
    assert mix.types == ()
    assert phi(("A", 1, 1, 1, (1,)), mix, model_curves(mix, "A")) == 0


# -- prices

ROOMY = dict.fromkeys("ABC", Size(1_000_000, 1 << 50, 64))


def test_no_model_named_no_prices() -> None:
    assert model_prices({shape(): 5, shape(0): 3}, {"A": 4000, "B": 0}, ROOMY) == {}


def test_the_scarce_model_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {shape(models=("A",)): 10, shape(): 10, shape(models=("none",)): 2}
    free = {"A": 4000, "B": 40_000, "C": 0}
    prices = model_prices(counts, free, ROOMY)
    assert prices["A"] > prices["B"] == 0
    monkeypatch.setattr(pack_price, "SWEEPS_MAX", 1)
    assert model_prices(counts, free, ROOMY)["A"] > 0


def test_a_model_that_nobody_may_use_is_free() -> None:
    counts = {shape(models=("A",)): 1, shape(models=("B",)): 1}
    prices = model_prices(counts, {"A": 10, "B": 10, "C": 10}, ROOMY)
    assert prices["C"] == 0


@pytest.mark.parametrize("large", [shape(gpus=8), shape(cpu=33_000), shape()._replace(memory_bytes=65 * GIB)])
def test_what_needs_a_large_node_depends_on_the_models_that_have_them(large: Ask) -> None:
    """No pod names a model, and yet the model with the large nodes is scarce."""
    sizes = {"A": Size(64_000, 128 * GIB, 8), "B": Size(32_000, 64 * GIB, 4)}
    free = {"A": 16_000, "B": 40_000}
    assert model_prices({large: 10, shape(): 10}, free, sizes)["A"] > 0
    assert model_prices({shape(gpus=4): 10, shape(): 10}, free, sizes) == {}
    assert model_prices({shape(gpus=9): 10, shape(): 10}, free, sizes) == {}  # nowhere at all: no demand


def test_the_largest_node_is_known_after_it_was_filled_and_exported() -> None:
    """A packer that goes on from an export knows of a node what it was before pods lay on it."""
    first = Packer(State(nodes=(NodeState("n", "A", 8_000, GIB, (WHOLE,) * 8),)))
    assert first.place(Ask(8_000, GIB, 8, WHOLE)) is not None
    again = Packer(first.export())
    assert dict(again.export().largest) == {"A": Size(8_000, GIB, 8)}
    assert again.export() == first.export()
