"""What has become of runs: the reports of one driver, as the events that the snapshot does not hold yet.

Theory of operation. A report is the whole truth of one rank now; the snapshot is what the journal knows.
The difference is said as events: begun, checkpoints, artifacts, ended, in that order, so that a verdict
never comes before what it rests on. A rank that was seen before and of which the driver holds no object
any more is lost: its object was the proof of life, and it is gone.
"""

from collections.abc import Iterator

from steersman.model.events import (
    ArtifactPublished,
    CheckpointSaved,
    Event,
    RankExited,
    RankReady,
    RankStarted,
    RankUnknown,
)
from steersman.model.ids import RunId
from steersman.model.snapshot import Run, Snapshot
from steersman.ports.driver import Driver, RankReport
from steersman.ports.sensor import Observation


class RunSensor:
    """The Sensor port over one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def name(self) -> str:
        return f"runs/{self._driver.name}"

    async def observe(self, snapshot: Snapshot) -> Observation:
        reports = tuple(sorted(await self._driver.observe(), key=lambda report: report.key))
        events = [event for report in reports for event in news(snapshot, report)]
        events += missing(snapshot, self._driver.name, reports)
        return Observation(events=tuple(events), driver=self._driver.name, reports=reports)

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._driver.wait_changed(timeout_ms)


def news(snapshot: Snapshot, report: RankReport) -> Iterator[Event]:
    """What a report says that the snapshot does not know."""
    run = snapshot.runs.get(report.key.run)
    if run is None or report.key.rank >= len(run.ranks):
        return
    rank = run.ranks[report.key.rank]
    if rank.end is not None:
        return
    if report.state == "unknown":
        if not rank.unknown:
            yield RankUnknown(run=run.id, rank=report.key.rank)
        return
    if report.started_ms is not None and (rank.started_ms is None or rank.unknown):
        yield RankStarted(
            run=run.id,
            rank=report.key.rank,
            pid=report.pid or 0,
            at_ms=report.started_ms,
            limits=report.limits,
        )
    if report.ready_ms is not None and report.key.rank == 0 and run.ready_ms is None:
        yield RankReady(
            run=run.id, rank=report.key.rank, at_ms=report.ready_ms, load_ms=max(report.load_ms, 0)
        )
    yield from _saved(run, report)
    if report.state == "exited":
        yield from _ended(run, report)


def _saved(run: Run, report: RankReport) -> Iterator[Event]:
    known = -1 if run.saved_ms is None or run.saved_step is None else run.saved_step
    for saved in report.checkpoints[-1:]:
        if saved.step > known:
            yield CheckpointSaved(
                run=run.id, step=saved.step, at_ms=saved.at_ms, save_ms=saved.save_ms, digest=saved.digest
            )


def _ended(run: Run, report: RankReport) -> Iterator[Event]:
    for artifact in report.artifacts:
        yield ArtifactPublished(
            run=run.id,
            workload=run.workload,
            name=artifact.name,
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
        )
    yield RankExited(
        run=run.id,
        rank=report.key.rank,
        at_ms=report.ended_ms or 0,
        exit_code=report.exit_code,
        signal=report.signal,
        cause=report.cause,
        detail=report.detail,
        completed=report.completed,
        stop_delivered=report.stop_delivered,
    )


def missing(snapshot: Snapshot, driver: str, reports: tuple[RankReport, ...]) -> Iterator[Event]:
    """Ranks that had begun on this driver and of which no object is left."""
    seen = {(report.key.run, report.key.rank) for report in reports}
    for (run_id,) in snapshot.indexes.live:
        run = snapshot.runs[RunId(run_id)]
        for index, rank in enumerate(run.ranks):
            begun = rank.end is None and rank.started_ms is not None
            if begun and (run.id, index) not in seen and _runs_on(snapshot, rank.placement.node, driver):
                detail = "its run directory or outside object is gone"
                yield RankExited(run=run.id, rank=index, at_ms=snapshot.now_ms, cause="lost", detail=detail)


def _runs_on(snapshot: Snapshot, node: str, driver: str) -> bool:
    state = snapshot.nodes.get(node)
    return state is not None and state.node.driver == driver
