"""Reports against the snapshot: what is news, what is known, what is missing."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.engine.test_orders import ENDED, KEY, NOW_MS, QUEUED, RUN, RUNNING, STARTING, after

from steersman.model.errors import DriverError
from steersman.model.events import (
    ArtifactPublished,
    CheckpointSaved,
    Event,
    NodeHealth,
    RankExited,
    RankStarted,
    RankUnknown,
)
from steersman.model.ids import NodeId, RunId
from steersman.model.snapshot import Snapshot
from steersman.ports.driver import ArtifactReport, CheckpointReport, RankKey, RankReport
from steersman.sensors.runs import RunSensor, missing, news
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver

SAVED = tuple(
    CheckpointReport(step=step, at_ms=NOW_MS, save_ms=3, digest=f"sha256:{step}") for step in (1, 2)
)
UNKNOWN = after(RUNNING, RankUnknown(run=RUN, rank=0))
SAVING = after(RUNNING, CheckpointSaved(run=RUN, step=2, at_ms=NOW_MS, save_ms=3, digest="sha256:2"))
STARTED = RankStarted(run=RUN, rank=0, pid=7, at_ms=NOW_MS, limits="cgroup-v2")
EXITED = RankExited(run=RUN, rank=0, at_ms=NOW_MS + 5, exit_code=3)
CHECKPOINT = CheckpointSaved(run=RUN, step=2, at_ms=NOW_MS, save_ms=3, digest="sha256:2")
ARTIFACT = ArtifactPublished(run=RUN, workload="a", name="m", digest="sha256:m", size_bytes=1)  # type: ignore[arg-type]  # a name


def report(state: str, **fields: Any) -> RankReport:
    begun = (
        {} if state in {"starting", "unknown"} else {"pid": 7, "started_ms": NOW_MS, "limits": "cgroup-v2"}
    )
    ended = {"ended_ms": NOW_MS + 5, "exit_code": 3} if state == "exited" else {}
    return RankReport(key=KEY, epoch=1, decision="4.0", state=state, **{**begun, **ended, **fields})  # type: ignore[arg-type]  # a table of words


TABLE: list[tuple[str, Snapshot, RankReport, list[Event]]] = [
    ("nothing yet", STARTING, report("starting"), []),
    ("it has begun its setup", STARTING, report("setup"), [STARTED]),
    ("it has begun", STARTING, report("running"), [STARTED]),
    ("known to run", RUNNING, report("running"), []),
    ("begun and ended between two looks", STARTING, report("exited"), [STARTED, EXITED]),
    ("ended", RUNNING, report("exited"), [EXITED]),
    ("never began", STARTING,
     report("exited", started_ms=None, pid=None, cause="start-failed", exit_code=None),
     [replace(EXITED, exit_code=None, cause="start-failed")]),
    ("an end without a time", RUNNING, report("exited", ended_ms=None), [replace(EXITED, at_ms=0)]),
    ("saved: the newest only", RUNNING, report("running", checkpoints=SAVED), [CHECKPOINT]),
    ("saved, and known", SAVING, report("running", checkpoints=SAVED), []),
    ("saved, with an artifact, and ended: in that order", RUNNING,
     report("exited", checkpoints=SAVED,
            artifacts=(ArtifactReport(name="m", digest="sha256:m", size_bytes=1),)),
     [CHECKPOINT, ARTIFACT, EXITED]),
    ("nobody can tell", RUNNING, report("unknown"), [RankUnknown(run=RUN, rank=0)]),
    ("nobody can tell, which is known", UNKNOWN, report("unknown"), []),
    ("seen again", UNKNOWN, report("running"), [STARTED]),
    ("it ended in the dark", UNKNOWN, report("exited"), [STARTED, EXITED]),
    ("ended, and known", ENDED, report("exited", checkpoints=SAVED), []),
    ("ended for the record", ENDED, report("running"), []),
    ("no such run", QUEUED, report("running"), []),
    ("no such rank", RUNNING, replace(report("exited"), key=RankKey(run=RUN, rank=1)), []),
    ("said everything", RUNNING,
     report("exited", exit_code=None, signal=9, cause="memory", detail="too much", completed=True,
            stop_delivered=True),
     [replace(EXITED, exit_code=None, signal=9, cause="memory", detail="too much", completed=True,
              stop_delivered=True)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("snapshot", "seen", "events"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_news(snapshot: Snapshot, seen: RankReport, events: list[Event]) -> None:
    assert list(news(snapshot, seen)) == events


@pytest.mark.parametrize(("snapshot", "seen"), [row[1:3] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_was_recorded_is_not_said_again(snapshot: Snapshot, seen: RankReport) -> None:
    """Level-triggered and convergent: after the news are folded, the same report is no news."""
    assert list(news(after(snapshot, *news(snapshot, seen)), seen)) == []


def lost(snapshot: Snapshot, reports: Sequence[RankReport] = (), driver: str = "sim") -> list[Event]:
    return list(missing(snapshot, driver, tuple(reports)))


def test_a_rank_that_was_seen_and_is_gone_is_lost() -> None:
    (event,) = lost(RUNNING)
    assert isinstance(event, RankExited)
    assert (event.run, event.rank, event.cause, event.at_ms) == (RUN, 0, "lost", NOW_MS)
    assert lost(after(RUNNING, event)) == []


def test_what_was_never_seen_or_is_seen_or_is_anothers_is_not_lost() -> None:
    assert lost(STARTING) == []
    assert lost(RUNNING, [report("unknown")]) == []
    assert lost(RUNNING, driver="other") == []
    assert lost(ENDED) == []
    assert lost(after(RUNNING, NodeHealth(node=NodeId("n0"), health="dead"))) == []


def test_the_sensor_says_what_the_driver_sees_in_order_of_key() -> None:
    async def whole() -> None:
        driver = SimDriver(VirtualClock(NOW_MS), lambda _order: Behaviour())
        sensor = RunSensor(driver)
        assert sensor.name == "runs/sim"
        found = [
            replace(report("running"), key=RankKey(run=RunId("b.9"), rank=0)),
            report("running"),
        ]

        async def observe() -> Sequence[RankReport]:
            return found

        driver.observe = observe  # type: ignore[method-assign]  # what it sees
        seen = await sensor.observe(STARTING)
        assert seen.driver == "sim"
        assert seen.reports == (found[1], found[0])
        assert seen.events == (STARTED,)
        await asyncio.wait_for(sensor.wait_changed(0), timeout=60)

    asyncio.run(whole())


def test_a_blind_driver_is_no_news() -> None:
    async def whole() -> None:
        driver = SimDriver(VirtualClock(NOW_MS), lambda _order: Behaviour())

        async def observe() -> Sequence[RankReport]:
            raise DriverError("nothing can be seen")

        driver.observe = observe  # type: ignore[method-assign]  # a fault
        with pytest.raises(DriverError):
            await RunSensor(driver).observe(RUNNING)

    asyncio.run(whole())
