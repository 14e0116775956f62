"""Everything the control API can do, without HTTP: one method per route.

Theory of operation. Reading answers from the snapshot of the last fold. Writing turns a request into events
and returns when they are durable and folded, so that whoever was answered sees what was asked in the next
status. Writers take turns: between the look at the snapshot and the commit nobody else declares anything, so
two equal submissions at one moment do not become two declarations.
"""

import asyncio
import re
from collections.abc import Sequence

from steersman.app import audit, declare, doctor, logs, views
from steersman.app.machine import local_fleet, this_machine
from steersman.app.planning import plan_view
from steersman.app.settings import Settings
from steersman.app.wire import (
    WAIT_MS_MAX,
    DoctorView,
    DownRequest,
    EventsView,
    LogView,
    NamesView,
    PlanView,
    StatusView,
    Submission,
    UpView,
    WorkloadView,
)
from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.explain.words import describe
from steersman.explain.workload import Explanation, explain
from steersman.guard.secrets import Secrets
from steersman.model.errors import ConflictError
from steersman.model.events import Event, RemoveRequested, StopRequested
from steersman.model.ids import WorkloadName
from steersman.model.snapshot import FINAL_PHASES, Snapshot, WorkloadState
from steersman.ports import run_dir
from steersman.spec.parse import Parsed

FOLD_WAIT_MS = 5_000
"""How long a writer waits for the fold of what it stored."""
RANK_MAX = 100_000

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RUN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.[0-9]{1,18}")


class Control:
    """One home's control plane, as its API sees it."""

    def __init__(self, engine: Engine, parts: Parts, secrets: Secrets, settings: Settings) -> None:
        self._engine = engine
        self._parts = parts
        self._secrets = secrets
        self._settings = settings
        self._turn = asyncio.Lock()

    @property
    def engine(self) -> Engine:
        """For the metrics."""
        return self._engine

    # Writing.

    async def up(self, submission: Submission) -> UpView:
        """Declare. Raises SpecError, and then nothing of the submission counts."""
        here, parsed = await self._read(submission)
        async with self._turn:
            found = await asyncio.to_thread(declare.compare, parsed, self._engine.snapshot, here)
            position = await self._submit(found.events)
        return UpView(
            workloads=found.workloads, fleet=found.fleet, warnings=found.warnings, position=position
        )

    async def plan(self, submission: Submission) -> PlanView:
        """What `up` would do; changes nothing. Raises SpecError."""
        here, parsed = await self._read(submission)
        found = await asyncio.to_thread(declare.compare, parsed, self._engine.snapshot, here)
        _, plan = self._engine.preview(found.events)
        return plan_view(found, plan)

    async def stop(self, name: str) -> NamesView:
        """End a workload's run and keep the declaration. Raises ConflictError for an unknown one."""
        async with self._turn:
            state = _find(self._engine.snapshot, name)
            if state.phase in FINAL_PHASES or state.stop_requested:
                return NamesView(names=(name,), position=self._engine.snapshot.position)
            position = await self._submit([StopRequested(workload=state.spec.name)])
        return NamesView(names=(name,), position=position)

    async def down(self, request: DownRequest) -> NamesView:
        """Remove workloads: all those named, or none. Raises ConflictError."""
        if request.all == bool(request.names):
            raise ConflictError(
                "give either the names of workloads or all of them",
                hint="steer down NAME…, or steer down --all",
                code="bad-request",
            )
        async with self._turn:
            snapshot = self._engine.snapshot
            names = sorted(set(request.names)) or [name for name, _ in snapshot.workloads.sorted_items()]
            states = [_find(snapshot, name) for name in names]
            events = [RemoveRequested(workload=state.spec.name) for state in states if not state.removing]
            position = await self._submit(events)
        return NamesView(names=tuple(names), position=position)

    async def _read(self, submission: Submission) -> tuple[declare.Here, Parsed]:
        """Parsed in a thread, for a large submission and the files of its workdirs take a while.

        Not in a writer's turn: nobody else waits for it.
        """
        here = declare.Here(
            home=self._settings.home,
            user=self._settings.user,
            fleet=local_fleet(),
            secrets=await asyncio.to_thread(self._secrets.list),
            machine=this_machine(),
        )
        return here, await asyncio.to_thread(declare.read, submission, here)

    async def _submit(self, events: Sequence[Event]) -> int:
        if not events:
            return self._engine.snapshot.position
        position = await self._engine.submit(events)
        if self._engine.snapshot.position < position:
            await self._engine.changed(FOLD_WAIT_MS)
        return position

    # Reading.

    async def status(self, after: int | None = None, wait_ms: int = 0) -> StatusView:
        """All workloads and nodes; first waits until something came after a position, or for `wait_ms`."""
        if after is not None and self._engine.snapshot.position <= after and wait_ms > 0:
            await self._engine.changed(min(wait_ms, WAIT_MS_MAX))
        return views.status(self._engine.snapshot, self._engine.stats(), self._engine.progress)

    def workload(self, name: str) -> WorkloadView:
        """Everything about one workload. Raises ConflictError."""
        snapshot = self._engine.snapshot
        state = _find(snapshot, name)
        return views.workload(snapshot, state, self._engine.progress, self._parts.artifact_path)

    async def explain(self, name: str) -> Explanation:
        """Why a workload stands where it does, and what happened to it. Raises ConflictError."""
        snapshot = self._engine.snapshot
        state = _find(snapshot, name)
        return await asyncio.to_thread(
            lambda: explain(snapshot, name, audit.about(self._parts.journal, name, state.declared_at - 1))
        )

    async def events(self, wanted: audit.Filter, after: int, limit: int) -> EventsView:
        """Audit entries. Raises ConflictError for an unknown type."""
        return await asyncio.to_thread(audit.page, self._parts.journal, wanted, after, limit)

    async def log(self, name: str, rank: int, run: str | None, place: str) -> LogView:
        """A piece of one rank's output. Raises ConflictError when there is no such workload, run or rank."""
        _require(_NAME, name, "workload")
        if run is None:
            run = await self._last_run(name)
        _require(_RUN, run, "run")
        if run.rpartition(".")[0] != name:
            raise ConflictError(f"the run {run!r} is not one of {name!r}", code="unknown-run")
        folder = self._settings.home / run_dir.RUNS / run / str(rank)
        if not 0 <= rank <= RANK_MAX or not folder.is_dir():
            raise ConflictError(
                f"the run {run!r} has no rank {rank} here",
                hint=f"steer audit --subject {name}, for the runs there were",
                code="unknown-run",
            )
        live = self._lives(run, rank)
        piece = await asyncio.to_thread(logs.read_log, folder, place)
        return LogView(
            run=run,
            rank=rank,
            text=piece.text,
            next_offset=piece.next_place,
            lost=piece.lost,
            live=live,
            end=piece.end,
        )

    async def _last_run(self, name: str) -> str:
        snapshot = self._engine.snapshot
        found = await asyncio.to_thread(logs.runs_of, self._settings.home, name)
        state = snapshot.workloads.get(name) if found else _find(snapshot, name)
        run = None if state is None else views.current_run(snapshot, state)
        if run is not None and run.id in found:
            return run.id
        if found:
            return found[-1]
        why = "" if state is None or state.reason is None else f": {describe(state.reason)}"
        raise ConflictError(
            f"{name!r} has not run yet{why}", hint=f"steer explain {name}", code="not-run-yet"
        )

    def _lives(self, run: str, rank: int) -> bool:
        found = self._engine.snapshot.runs.get(run)
        return found is not None and rank < len(found.ranks) and found.ranks[rank].end is None

    async def doctor(self) -> DoctorView:
        """The doctor's findings."""
        return await asyncio.to_thread(doctor.examine, self._settings)


def _find(snapshot: Snapshot, name: str) -> WorkloadState:
    _require(_NAME, name, "workload")
    state = snapshot.workloads.get(WorkloadName(name))
    if state is None:
        known = [known for known, _ in snapshot.workloads.sorted_items()]
        raise ConflictError(
            f"there is no workload called {name!r}",
            hint=declare.nearest(name, known),
            code="unknown-workload",
        )
    return state


def _require(pattern: re.Pattern[str], name: str, what: str) -> None:
    if pattern.fullmatch(name) is None:
        raise ConflictError(
            f"{name[:64]!r} is not the name of a {what}",
            hint="names are lower-case letters, digits and `-`",
            code="bad-name",
        )
