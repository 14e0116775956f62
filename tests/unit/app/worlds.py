"""Small worlds for tests of the app: what is declared, decided, and then happens."""

from collections.abc import Sequence
from pathlib import Path

from steersman.app.declare import Here, declare
from steersman.app.machine import Machine
from steersman.app.wire import Document, Submission
from steersman.decide.cycle import decide
from steersman.model.events import Decided, Event, Observed, RankExited, RankStarted
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, RunId
from steersman.model.snapshot import Snapshot
from steersman.state.fold import fold

FLEET = Fleet(name="here", nodes=(Node(id=NodeId("n1"), cpu_milli=4_000, memory_bytes=2**33),))
MACHINE = Machine(cpu_milli=4_000, memory_bytes=2**33)
HERE = Here(home=Path("/nowhere/home"), user=Path("/"), fleet=FLEET, secrets=("TOKEN",), machine=MACHINE)


def submission(*texts: str, folder: str = "/") -> Submission:
    """Documents called 0.yaml, 1.yaml …"""
    return Submission(
        documents=tuple(
            Document(source=f"{index}.yaml", text=text, folder=folder) for index, text in enumerate(texts)
        )
    )


def folded(snapshot: Snapshot, events: Sequence[Event]) -> Snapshot:
    """The snapshot with events that follow it."""
    return fold(snapshot, enumerate(events, start=snapshot.position + 1))


def cycle(snapshot: Snapshot, events: Sequence[Event]) -> list[Event]:
    """The events of one cycle that these events begin, with what is decided."""
    batch: list[Event] = [Observed(now_ms=snapshot.now_ms + 1_000), *events]
    after = folded(snapshot, batch)
    return [*batch, Decided(observed_at=after.observed_at, decisions=decide(after).decisions)]


def settle(snapshot: Snapshot, events: Sequence[Event]) -> Snapshot:
    """The snapshot after these events and what is decided on them."""
    return folded(snapshot, cycle(snapshot, events))


def declared(*texts: str, snapshot: Snapshot | None = None) -> Snapshot:
    """The snapshot after a submission and what is decided on it."""
    before = Snapshot() if snapshot is None else snapshot
    return settle(before, declare(submission(*texts), before, HERE).events)


def run_of(snapshot: Snapshot, name: str) -> RunId:
    """The workload's run under way."""
    run = snapshot.workloads[name].run
    assert run is not None
    return run


def began(snapshot: Snapshot, name: str) -> RankStarted:
    """Its first rank has begun."""
    return RankStarted(run=run_of(snapshot, name), rank=0, pid=1, at_ms=snapshot.now_ms)


def exited(snapshot: Snapshot, name: str, exit_code: int) -> RankExited:
    """Its first rank is gone."""
    return RankExited(run=run_of(snapshot, name), rank=0, at_ms=snapshot.now_ms + 1, exit_code=exit_code)


def ended(snapshot: Snapshot, name: str, exit_code: int) -> Snapshot:
    """The snapshot after the workload's run ended."""
    return settle(snapshot, [began(snapshot, name), exited(snapshot, name, exit_code)])
