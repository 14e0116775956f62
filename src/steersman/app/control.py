"""Everything the control API can do, without HTTP: one method per route.

Theory of operation. Reading answers from the snapshot of the last fold. Writing turns a request into events
and returns when they are durable and folded, so that whoever was answered sees what was asked in the next
status. Writers take turns: between the look at the snapshot and the commit nobody else declares anything, so
two equal submissions at one moment do not become two declarations.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from steersman.app import audit, declare, doctor, keys, logs, policies, serving, views
from steersman.app.failures import Failures
from steersman.app.gateway_place import Follower
from steersman.app.lost import lost
from steersman.app.machine import local_fleet, this_machine
from steersman.app.naming import (
    check_run,
    declared_names,
    find,
    find_declared,
    find_job,
    find_service,
    full_name,
)
from steersman.app.planning import foresee, gateway_warnings, plan_view
from steersman.app.policies import PolicyRequest, PolicyView
from steersman.app.settings import Settings
from steersman.app.wire import (
    WAIT_MS_MAX,
    DoctorView,
    DownRequest,
    EventsView,
    KeyRequest,
    KeysView,
    LogView,
    NamesView,
    NewKeyView,
    PlanView,
    ServiceView,
    StatusView,
    Submission,
    UpView,
    WorkloadView,
)
from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.explain.history import is_of
from steersman.explain.services import culprits, explain_service
from steersman.explain.words import describe
from steersman.explain.workload import Explanation, explain
from steersman.guard.secrets import Secrets
from steersman.model.errors import ConflictError
from steersman.model.events import Event, PolicySet, RemoveRequested, StopRequested
from steersman.model.service import Gateway
from steersman.model.snapshot import FINAL_PHASES, ServiceState, Snapshot, WorkloadState
from steersman.ports import run_dir
from steersman.sensors.figures import Figures
from steersman.spec.parse import Parsed
from steersman.spec.policies import parse_policy

FOLD_WAIT_MS = 5_000
"""How long a writer waits for the fold of what it stored."""
RANK_MAX = 100_000
LISTENING_LOOK_MS = 100
"""How often a waiting question is answered while the gateway does not listen yet."""


class Control:
    """One home's control plane, as its API sees it. `figures` are those that the gateway's sensor keeps."""

    def __init__(
        self,
        engine: Engine,
        parts: Parts,
        secrets: Secrets,
        settings: Settings,
        figures: Figures | None = None,
    ) -> None:
        self._engine = engine
        self._parts = parts
        self._secrets = secrets
        self._settings = settings
        self._figures = Figures() if figures is None else figures
        self._follower = Follower(settings.home)
        self._failures = Failures(settings.home, parts.journal)
        self._turn = asyncio.Lock()

    @property
    def engine(self) -> Engine:
        """For the metrics."""
        return self._engine

    @property
    def figures(self) -> Figures:
        """For the metrics."""
        return self._figures

    # Writing.

    async def up(self, submission: Submission) -> UpView:
        """Declare. Raises SpecError, and then nothing of the submission counts."""
        here, parsed = await self._read(submission)
        async with self._turn:
            found = await asyncio.to_thread(declare.compare, parsed, self._engine.snapshot, here)
            await asyncio.to_thread(declare.store, parsed, self._settings.home)
            position = await self._submit(found.events)
        return UpView(
            workloads=found.workloads,
            fleet=found.fleet,
            warnings=found.warnings,
            position=position,
            gateway=found.gateway,
            gateway_changes=found.gateway_changes,
            queues=found.queues,
        )

    async def plan(self, submission: Submission) -> PlanView:
        """What `up` would do; changes nothing. Raises SpecError."""
        here, parsed = await self._read(submission)
        snapshot = self._engine.snapshot
        found = await asyncio.to_thread(declare.compare, parsed, snapshot, here)
        warnings = gateway_warnings(found, snapshot, self._live(snapshot))
        return plan_view(found, foresee(self._engine.preview(found.events)), warnings)

    async def stop(self, name: str) -> NamesView:
        """End a job's run or a service's replicas and keep the declaration. Raises ConflictError."""
        async with self._turn:
            state = find_declared(self._engine.snapshot, name)
            final = isinstance(state, WorkloadState) and state.phase in FINAL_PHASES
            if final or state.stop_requested:
                return NamesView(names=(name,), position=self._engine.snapshot.position)
            position = await self._submit([StopRequested(workload=state.spec.name)])
        return NamesView(names=(name,), position=position)

    async def down(self, request: DownRequest) -> NamesView:
        """Remove jobs and services: all those named, or none. Raises ConflictError."""
        if request.all == bool(request.names):
            raise ConflictError(
                "give either the names of workloads or all of them",
                hint="steer down NAME…, or steer down --all",
                code="bad-request",
            )
        async with self._turn:
            snapshot = self._engine.snapshot
            names = sorted(set(request.names)) or list(map(str, declared_names(snapshot)))
            states = [find_declared(snapshot, name) for name in names]
            events = [RemoveRequested(workload=state.spec.name) for state in states if not state.removing]
            position = await self._submit(events)
        return NamesView(names=tuple(names), position=position)

    async def lost(self, name: str) -> NamesView:
        """Take a node or a cluster for gone. Raises ConflictError for one that answers."""
        async with self._turn:
            events = lost(self._engine.snapshot, name)
            position = await self._submit(events)
        return NamesView(names=tuple(event.node for event in events), position=position)

    async def create_key(self, request: KeyRequest) -> NewKeyView:
        """Make an API key; its text is in this answer and nowhere else. Raises ConflictError."""
        async with self._turn:
            now_ms = self._parts.clock.now_ms()
            made = keys.create(self._engine.snapshot, request, now_ms)
            position = await self._submit([made.event])
        return NewKeyView(key=keys.view(made.event.key, now_ms), secret=made.new.text, position=position)

    async def revoke_key(self, name: str) -> NamesView:
        """End an API key. Raises ConflictError for an unknown one."""
        async with self._turn:
            position = await self._submit([keys.revoke(self._engine.snapshot, name)])
        return NamesView(names=(name,), position=position)

    def policy(self) -> PolicyView:
        """The numbers that the deciders obey."""
        snapshot = self._engine.snapshot
        return PolicyView(policy=snapshot.policy, position=snapshot.position)

    async def set_policy(self, request: PolicyRequest) -> PolicyView:
        """Obey another policy from the next decision on. Raises SpecError, and then the old one is kept."""
        policy = parse_policy(request.text, request.source)
        async with self._turn:
            changes = policies.changes(self._engine.snapshot.policy, policy)
            position = await self._submit([PolicySet(policy=policy)] if changes else [])
        return PolicyView(policy=policy, position=position, changes=changes)

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

    async def status(self, after: int | None = None, wait_ms: int = 0, *, owned: bool = False) -> StatusView:
        """Everything declared, and the nodes; first waits until something came after a position, or for
        `wait_ms`. With `owned` also the jobs that Steersman runs itself."""
        snapshot = self._engine.snapshot
        if after is not None and snapshot.position <= after and wait_ms > 0:
            await self._engine.changed(min(wait_ms, self._wait_ms_max(snapshot)))
            snapshot = self._engine.snapshot
        live = await self._whole(snapshot)
        now = replace(snapshot, now_ms=max(snapshot.now_ms, self._parts.clock.now_ms()))  # time passes anyway
        return views.status(now, self._engine.stats(), self._engine.progress, live, owned=owned)

    def workload(self, name: str) -> WorkloadView:
        """Everything about one job. Raises ConflictError, with the code ``is-service`` for a service."""
        snapshot = self._engine.snapshot
        state = find_job(snapshot, name)
        return views.workload(snapshot, state, self._engine.progress, self._parts.artifact_path)

    async def service(self, name: str) -> ServiceView:
        """Everything about one service. Raises ConflictError."""
        snapshot = self._engine.snapshot
        state = find_service(snapshot, name)
        return serving.view(snapshot, state, await self._whole(snapshot))

    def keys(self) -> KeysView:
        """All API keys, by name."""
        now_ms = self._parts.clock.now_ms()
        return KeysView(keys=tuple(keys.view(key, now_ms) for key in self._engine.snapshot.keys))

    async def explain(self, name: str) -> Explanation:
        """Why a job or a service stands where it does, and what happened to it. Raises ConflictError."""
        snapshot = self._engine.snapshot
        state = find(snapshot, name)
        now_ms = max(snapshot.now_ms, self._parts.clock.now_ms())
        whole, since = state.spec.name, state.declared_at - 1
        live = self._live(snapshot)

        def explained() -> Explanation:
            records = audit.about(self._parts.journal, whole, since)
            if isinstance(state, ServiceState):
                heard, listening = self._failures.look(snapshot), serving.listening(snapshot, live)
                return explain_service(snapshot, whole, records, listening=listening, heard=heard)
            return explain(replace(snapshot, now_ms=now_ms), whole, records)

        return await asyncio.to_thread(explained)

    async def events(self, wanted: audit.Filter, after: int, limit: int) -> EventsView:
        """Audit entries. Raises ConflictError for an unknown type."""
        return await asyncio.to_thread(audit.page, self._parts.journal, wanted, after, limit)

    async def log(self, name: str, rank: int, run: str | None, place: str) -> LogView:
        """A piece of one rank's output; of a service's newest replica. Raises ConflictError when there is no
        such workload, run or rank."""
        whole = full_name(self._engine.snapshot, name)
        if run is None:
            run = await self._last_run(whole)
        check_run(run)
        if not is_of(run.rpartition(".")[0], whole):
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
        """The last run that has a folder: a job's, or that of a service's newest replica."""
        snapshot = self._engine.snapshot
        service = snapshot.services.get(name)
        found = await asyncio.to_thread(
            logs.runs_of if service is None else logs.runs_of_replicas, self._settings.home, name
        )
        state = snapshot.workloads.get(name) if found or service is not None else find_job(snapshot, name)
        run = None if state is None else views.current_run(snapshot, state)
        if run is not None and run.id in found:
            return run.id
        if found:
            return found[-1]
        reason = state.reason if state is not None else None if service is None else service.reason
        why = "" if reason is None else f": {describe(reason)}"
        raise ConflictError(
            f"{name!r} has not run yet{why}", hint=f"steer explain {name}", code="not-run-yet"
        )

    def _lives(self, run: str, rank: int) -> bool:
        found = self._engine.snapshot.runs.get(run)
        return found is not None and rank < len(found.ranks) and found.ranks[rank].end is None

    def _wait_ms_max(self, snapshot: Snapshot) -> int:
        """How long a question may wait for news. That the gateway listens is no event of the journal."""
        live = self._live(snapshot)
        waits = len(snapshot.services) > 0 and not (serving.listening(snapshot, live) and live.follows)
        return LISTENING_LOOK_MS if waits else WAIT_MS_MAX

    def _live(self, snapshot: Snapshot) -> serving.Live:
        """What is known of the gateway; nothing is read while there is no service."""
        if not len(snapshot.services):
            return serving.Live(self._figures, None)
        address = self._parts.gateways.address()
        follows = self._follower.follows(snapshot.gateway or Gateway(), address)
        return serving.Live(self._figures, address, follows)

    async def _whole(self, snapshot: Snapshot) -> serving.Live:
        """The same, with what is known of replicas that ended badly; files are read when there are any."""
        live = self._live(snapshot)
        if not any(culprits(snapshot)):
            return live
        return live._replace(failures=await asyncio.to_thread(self._failures.look, snapshot))

    async def doctor(self) -> DoctorView:
        """The doctor's findings."""
        return await asyncio.to_thread(doctor.examine, self._settings)
