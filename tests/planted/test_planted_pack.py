"""Every law of packing bites: a bug is planted in the real packer, and the law meant for it finds it."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy
from tests.properties.pack_laws import Life, broken, lives, told

from steersman.decide import pack, pack_stock, pack_value
from steersman.decide.pack import Packer, State
from steersman.decide.pack_stock import cutting_stock
from steersman.decide.pack_value import SPREAD, Key
from steersman.model.packing import Ask

FINDING = settings(
    max_examples=3000, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck), derandomize=True,
)  # fmt: skip
Patch = pytest.MonkeyPatch


def _forgets_the_gpus_beyond_the_first(patch: Patch) -> None:
    real = Packer._devices
    patch.setattr(Packer, "_devices", staticmethod(lambda *of: real(*of)[:1]))


def _overlooks_rests_when_several_are_asked_for(patch: Patch) -> None:
    real = pack_value.cost

    def cost(shape: Ask, key: Key, *of: Any) -> Any:
        found = real(shape, key, *of)
        return None if found and found[1] == SPREAD and key[3] < shape.gpus else found

    patch.setattr(pack, "cost", cost)


def _offers_any_model(patch: Patch) -> None:
    real = Packer.place
    patch.setattr(Packer, "place", lambda self, shape: _under(real(self, shape._replace(models=())), shape))


def _under(found: Any, shape: Ask) -> Any:
    return found and found._replace(shape=shape)


def _takes_no_cpu(patch: Patch) -> None:
    real = Packer._change

    def change(self: Packer, node: Any, placement: Any, sign: int) -> None:
        free = placement.shape._replace(cpu_milli=0)
        real(self, node, placement._replace(shape=free), sign)

    patch.setattr(Packer, "_change", change)


def _gives_half_of_the_memory_back(patch: Patch) -> None:
    real = Packer.release

    def release(self: Packer, placement: Any) -> None:
        half = placement.shape._replace(memory_bytes=placement.shape.memory_bytes // 2)
        real(self, placement._replace(shape=half))

    patch.setattr(Packer, "release", release)


@pytest.mark.parametrize(
    ("plant", "law"),
    [
        (_forgets_the_gpus_beyond_the_first, "all GPUs or none"),
        (_overlooks_rests_when_several_are_asked_for, "placed exactly when there is room"),
        (_offers_any_model, "only a model that was asked for"),
        (_takes_no_cpu, "capacity is never exceeded"),
        (_gives_half_of_the_memory_back, "what is free is what nobody holds"),
    ],
)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None], law: str, monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert _found(lives(), lambda life: law in broken(life))


def _exports_no_arrivals(patch: Patch) -> None:
    real = Packer.export
    patch.setattr(Packer, "export", lambda self: real(self)._replace(counts=()))


def test_a_state_that_lacks_something_is_found(monkeypatch: Patch) -> None:
    _exports_no_arrivals(monkeypatch)
    assert _found(lives(), lambda life: told(life) != told(life, restart=True))


def test_the_order_of_nodes_deciding_is_found(monkeypatch: Patch) -> None:
    monkeypatch.setattr(pack._Class, "first", lambda self: self._heap[-1])
    monkeypatch.setattr(heapq, "heappush", _push)
    assert _found(lives(), _depends_on_order)


def _push(heap: list[Any], item: Any) -> None:
    heap.append(item)
    if isinstance(item, tuple):
        heap.sort()


def _depends_on_order(life: Life) -> bool:
    try:
        return told(life) != told(life._replace(nodes=life.nodes[::-1]))
    except (KeyError, AssertionError):
        return False


def test_a_dual_that_is_cut_short_is_found(monkeypatch: Patch) -> None:
    """A knapsack that looks at one item of each size at most is no longer superadditive."""

    def once(items: Sequence[tuple[int, float]], cells: int) -> tuple[list[float], list[int]]:
        best = [
            max((value for size, value in items if size <= room), default=0.0) for room in range(cells + 1)
        ]
        return best, [-1] * (cells + 1)

    monkeypatch.setattr(pack_stock, "knapsack", once)
    value = cutting_stock([5, 8], [9.0, 9.0], 20)
    assert any(value[one] + value[20 - one] > value[20] + 1e-6 for one in _rests(20))


def _rests(cells: int) -> Iterable[int]:
    return range(1, cells)


def _found(strategy: SearchStrategy[Life], breaks: Callable[[Life], bool]) -> bool:
    try:
        find(strategy, breaks, settings=FINDING)
    except NoSuchExample:
        return False
    return True


def test_nothing_is_found_in_the_real_packer() -> None:
    few = settings(FINDING, max_examples=100)
    with pytest.raises(NoSuchExample):
        find(lives(), lambda life: bool(list(broken(life))), settings=few)
    assert Packer(State()).place(Ask(1, 1, 0, 0)) is None
