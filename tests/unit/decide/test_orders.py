"""Which nodes are looked at follows from what is free now, also when a kind of node empties and refills."""

from msgspec.structs import replace
from tests.scenarios.home import GIB, Home, fleet, job, node, told

from steersman.decide.fit import holding, room, what_lacks
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import Shape
from steersman.state.draft import Draft

GPU = Shape(1_000, GIB, (("A100", 1),), 1)


def _take(draft: Draft, name: str) -> None:
    draft.put_node(NodeId(name), replace(draft.nodes[name], free_devices=()))


def _give_back(draft: Draft, name: str) -> None:
    state = draft.nodes[name]
    draft.put_node(NodeId(name), replace(state, free_devices=tuple(item.id for item in state.node.devices)))


def test_a_kind_of_node_that_emptied_is_looked_at_no_more() -> None:
    draft = Draft(Home(fleet(node("gpu", devices=["A100"]), node("plain"))).snapshot)
    assert [found for found, _ in room(draft, GPU)] == ["gpu"]
    _take(draft, "gpu")
    assert holding(draft, GPU) == []
    assert what_lacks(draft, GPU) is Code.NO_DEVICES


def test_a_kind_of_node_that_fills_again_is_looked_at_again() -> None:
    draft = Draft(Home(fleet(node("gpu", devices=["A100"]), node("plain"))).snapshot)
    _take(draft, "gpu")
    assert list(room(draft, GPU)) == []
    _give_back(draft, "gpu")
    assert [found for found, _ in room(draft, GPU)] == ["gpu"]


def test_the_reason_is_that_of_the_room_as_it_is() -> None:
    home = Home(fleet(node("gpu", cores=8, devices=["A100"]), node("plain", cores=1)))
    plan = home.up(job("one", gpus=(("A100", 1),)), job("two", cores=2, gpus=(("A100", 1),)))
    assert told(plan)[-1] == "hold two: no-devices"
