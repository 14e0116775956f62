"""Lives of a packer: nodes, pods that come and go, and the laws that hold at every step."""

from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from steersman.decide.pack import NodeState, Packer, Placement, State
from steersman.decide.pack_stock import WHOLE
from steersman.model.packing import Ask

SHARES = (100, 250, 333, 500, 650, 900, WHOLE)
MODELS = ("A", "B")


class Life(NamedTuple):
    """Nodes, then steps: a pod to place, or which of those held is released."""

    nodes: tuple[NodeState, ...]
    steps: tuple[Ask | int, ...]


@st.composite
def _node(draw: st.DrawFn, name: str) -> NodeState:
    gpus, cpu, memory = draw(st.integers(0, 4)), draw(st.integers(0, 9)), draw(st.integers(0, 9))
    return NodeState(name, draw(st.sampled_from(MODELS)), cpu, memory, (WHOLE,) * gpus)


def _pod(cpu: int, memory: int, gpus: int, share: int, models: list[str]) -> Ask:
    return Ask(cpu, memory, gpus, share if gpus else 0, tuple(sorted(models)))


pods = st.builds(
    _pod,
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from((0, 1, 1, 1, 2, 3)),
    st.sampled_from(SHARES),
    st.lists(st.sampled_from(MODELS), unique=True, max_size=1),
)


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """Small enough to fill up."""
    nodes = tuple(draw(_node(f"n{place}")) for place in range(draw(st.integers(1, 5))))
    steps = draw(st.lists(st.one_of(pods, pods, pods, st.integers(0, 20)), max_size=40))
    return Life(nodes, tuple(steps))


def told(life: Life, *, restart: bool = False) -> tuple[list[Placement | None], State]:
    """What a packer answers, and its state at the end; `restart`: from its exported state at every step."""
    packer, held, answers = Packer(State(nodes=life.nodes)), list[Placement](), list[Placement | None]()
    for step in life.steps:
        if restart:
            packer = Packer(packer.export())
        if isinstance(step, Ask):
            answers.append(packer.place(step))
            held += [one for one in answers[-1:] if one is not None]
        elif held:
            packer.release(held.pop(step % len(held)))
    return answers, packer.export()


def broken(life: Life) -> Iterator[str]:
    """The laws that a life breaks, by name."""
    packer, held = Packer(State(nodes=life.nodes)), list[Placement]()
    for step in life.steps:
        if isinstance(step, Ask):
            room = any(_has_room(node, step) for node in packer.export().nodes)
            found = packer.place(step)
            if (found is not None) != room:
                yield "placed exactly when there is room"
            if found is not None:
                held.append(found)
                yield from _broken_by(life, found)
        elif held:
            packer.release(held.pop(step % len(held)))
        if packer.export().nodes != tuple(sorted(_left(life, held))):
            yield "what is free is what nobody holds"
        if any(_below_nothing(node) for node in _left(life, held)):
            yield "capacity is never exceeded"


def _has_room(node: NodeState, pod: Ask) -> bool:
    if node.cpu_milli < pod.cpu_milli or node.memory_bytes < pod.memory_bytes:
        return False
    if pod.models and node.model not in pod.models:
        return False
    return sum(free >= pod.gpu_milli for free in node.devices) >= pod.gpus


def _broken_by(life: Life, found: Placement) -> Iterator[str]:
    node = next(one for one in life.nodes if one.node == found.node)
    if len(set(found.devices)) != found.shape.gpus:
        yield "all GPUs or none"
    if found.shape.models and node.model not in found.shape.models:
        yield "only a model that was asked for"


def _left(life: Life, held: list[Placement]) -> list[NodeState]:
    left = []
    for node in life.nodes:
        mine = [one for one in held if one.node == node.node]
        devices = tuple(
            free - sum(one.shape.gpu_milli for one in mine if place in one.devices)
            for place, free in enumerate(node.devices)
        )
        cpu = node.cpu_milli - sum(one.shape.cpu_milli for one in mine)
        memory = node.memory_bytes - sum(one.shape.memory_bytes for one in mine)
        left.append(NodeState(node.node, node.model, cpu, memory, devices))
    return left


def _below_nothing(node: NodeState) -> bool:
    return min(node.cpu_milli, node.memory_bytes, *node.devices, 0) < 0
