"""A fleet in virtual time on which jobs of known work run, and the decider that does not know it.

Theory: what the world does follows from the jobs alone. A run that was started begins at once; one that goes
on from a checkpoint first loses `RESTART_MS`; it saves when it is told to end, which takes `STOP_MS`; a job
that cannot resume begins anew. Between two events nothing happens but what the plan
asked to be woken for, so that a world that is never woken stands still, and is seen to.
"""

from typing import NamedTuple

from msgspec.structs import replace
from tests.scenarios.home import EPOCH_MS, RESUMABLE, Home, declared, fleet, job, node

from steersman.model.events import CheckpointSaved, Event, PolicySet, RankExited, RankStarted
from steersman.model.ids import QueueName
from steersman.model.policy import Policy
from steersman.model.snapshot import Phase, Run, RunState
from steersman.model.workload import Workload

RESTART_MS = 20_000
STOP_MS = 5_000
CYCLES_MAX = 60_000
SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
NEVER_MS = 1 << 60


class Task(NamedTuple):
    """A job, when it is declared (from the begin), and how long it works on its devices."""

    at_ms: int
    work_ms: int
    spec: Workload


def task(
    name: str,
    at_ms: int,
    work_ms: int,
    *,
    gpus: int = 1,
    kind: str = "A100",
    ranks: int = 1,
    priority: int = 0,
    queue: str = "",
    resumes: bool = True,
) -> Task:
    """A job of one core and so many devices a rank."""
    spec = job(name, gpus=((kind, gpus),) if gpus else (), ranks=ranks, priority=priority)
    body = replace(spec.body, checkpoint=RESUMABLE) if resumes else spec.body
    spec = replace(spec, body=body, queue=QueueName(queue) if queue else spec.queue)
    return Task(at_ms, work_ms, spec)


class World:
    """One life: see the module. `ends_ms` are the times from the begin at which jobs were done."""

    def __init__(
        self, tasks: list[Task], policy: Policy, *opening: Event, nodes: int = 1, gpus: int = 4
    ) -> None:
        names = [f"n{number}" for number in range(nodes)]
        machines = [node(name, cores=64, gib=256, devices=("A100",) * gpus) for name in names]
        self.home = Home(PolicySet(policy=policy), fleet(*machines), *opening)
        self._coming = sorted(tasks, key=lambda item: (item.at_ms, item.spec.name), reverse=True)
        self._left_ms = {item.spec.name: item.work_ms for item in tasks}
        self._begun_ms: dict[str, int] = {}
        self._told_ms: dict[str, int] = {}
        self.ends_ms: dict[str, int] = {}

    def live(self, until_ms: int = NEVER_MS) -> "World":
        """Go on until every job is done, or until then."""
        for _ in range(CYCLES_MAX):
            events = self._due()
            plan = self.home.cycle(*events, after_ms=0)
            if plan.decisions or self._beginning():
                continue
            times = [self._coming[-1].at_ms + EPOCH_MS] if self._coming else []
            times += [self._goes_ms(run) for run in self._runs()]
            times += [] if plan.wake_at_ms is None else [plan.wake_at_ms]
            if self._is_done() or not times or min(times) > EPOCH_MS + until_ms:
                return self
            self.home.now_ms = max(min(times), self.home.now_ms)
        raise AssertionError("the world does not come to an end")

    def _is_done(self) -> bool:
        return not self._coming and len(self.ends_ms) == len(self._left_ms)

    def _runs(self) -> list[Run]:
        return [self.home.snapshot.runs[name] for (name,) in self.home.snapshot.indexes.live]

    def _beginning(self) -> bool:
        return any(run.id not in self._begun_ms for run in self._runs())

    def _works_from_ms(self, run: Run) -> int:
        return self._begun_ms[run.id] + (RESTART_MS if run.attempt > 1 else 0)

    def _goes_ms(self, run: Run) -> int:
        """When the run ends by itself or because it was told to."""
        done_ms = self._works_from_ms(run) + self._left_ms[run.workload]
        return min(done_ms, self._told_ms.get(run.id, NEVER_MS) + STOP_MS)

    def _due(self) -> list[Event]:
        """All that happens now."""
        now_ms, events = self.home.now_ms, list[Event]()
        for run in self._runs():
            if run.id not in self._begun_ms:
                self._begun_ms[run.id] = now_ms
                ranks = range(len(run.ranks))
                events += [RankStarted(run=run.id, rank=rank, pid=1, at_ms=now_ms) for rank in ranks]
            if run.state is RunState.STOPPING:
                self._told_ms.setdefault(run.id, now_ms)
            if self._goes_ms(run) <= now_ms:
                events += self._gone(run)
        while self._coming and self._coming[-1].at_ms + EPOCH_MS <= now_ms:
            events.append(declared(self._coming.pop().spec))
        return events

    def _gone(self, run: Run) -> list[Event]:
        now_ms, ranks = self.home.now_ms, range(len(run.ranks))
        worked_ms = max(now_ms - self._works_from_ms(run), 0)
        left_ms = self._left_ms[run.workload]
        if worked_ms >= left_ms:
            self.ends_ms[run.workload] = now_ms - EPOCH_MS
            return [
                RankExited(run=run.id, rank=rank, at_ms=now_ms, exit_code=0, completed=True) for rank in ranks
            ]
        ends: list[Event] = [
            RankExited(run=run.id, rank=rank, at_ms=now_ms, exit_code=75, stop_delivered=True)
            for rank in ranks
        ]
        if not self.home.state(run.workload).spec.body.checkpoint.enabled:
            return ends
        self._left_ms[run.workload] = left_ms - worked_ms
        step = (run.saved_step or 0) + 1
        saved = CheckpointSaved(run=run.id, step=step, at_ms=now_ms, save_ms=100, digest="d")
        return [saved, *ends]

    def mean_completion_ms(self) -> float:
        """The mean time from a job's declaration to its end; every job must have ended."""
        states = self.home.snapshot.workloads
        assert {name for name, state in states.items() if state.phase is Phase.SUCCEEDED} == set(self.ends_ms)
        taken = [
            end_ms + EPOCH_MS - states[name].declared_ms for name, end_ms in sorted(self.ends_ms.items())
        ]
        assert len(taken) == len(self._left_ms)
        return sum(taken) / len(taken)
