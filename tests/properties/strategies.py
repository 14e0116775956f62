"""Homes built from random events, the way the engine would meet them.

Theory: hypothesis draws a `Story`: a seed and a length. From the seed follows an endless list of batches of
small numbered steps, of which the story is the first so many, so that a failing story shrinks to its shortest
beginning, and a seed is a bug report. A step says what kind of thing happens and carries three numbers;
`play` turns it into events against the home as it then stands (the 3rd live run, the 2nd node …), so that
most of what is drawn means something. Some steps are meant to be nonsense: late, twice, for something gone,
for a rank that never was. Stories of an odd seed have services in them (`service_steps`).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from zlib import crc32

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.properties import service_steps
from tests.scenarios.home import Home, declared, fleet, job, node, published_by

from steersman.model.events import (
    ActionFailed,
    ArtifactPublished,
    CheckpointSaved,
    Event,
    NodeHealth,
    PolicySet,
    RankExited,
    RankReady,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    Signal,
    StopRequested,
)
from steersman.model.fleet import Node
from steersman.model.ids import DecisionId, DeviceId, NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.resources import Resources
from steersman.model.service import Service
from steersman.model.snapshot import Run, RunState
from steersman.model.workload import CheckpointPolicy, Retry, Workload

NAMES = tuple(f"w{index}" for index in range(9))
PARTS_ONE_IN = 5
"""One declaration in so many asks for a part of a device, or for alternatives."""
NODES = ("n0", "n1", "n2", "n3")

POLICY = Policy(
    backoff_ms_base=1_000,
    backoff_ms_max=1_500,
    crash_loop_failures=3,
    crash_loop_run_ms=5_000,
    preempt_run_ms_min=1_500,
    interruption_mtbf_ms_prior=600_000,
)
POLICIES = (
    POLICY,
    Policy(),
    Policy(starts_per_cycle=1, preempt_attempts_per_cycle=1, preempt_run_ms_min=0, backoff_ms_base=500),
)

SIZES: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (2, 4, ()),
    (4, 8, ()),
    (1, 2, ()),
    (4, 8, ("A100", "A100")),
    (8, 16, ("A100", "H100", "H100")),
)


class Step(NamedTuple):
    """What happens, three numbers to choose with, and what a declaration says."""

    kind: str
    a: int
    b: int
    c: int
    spec: Workload | None = None
    service: Service | None = None


class Batch(NamedTuple):
    after_ms: int
    steps: tuple[Step, ...]


class Story(NamedTuple):
    """What happens, drawn from a seed, and for how many cycles."""

    seed: int
    length: int


def make_node(name: str, size: int) -> Node:
    """A node of one of the sizes."""
    cores, gib, devices = SIZES[size % len(SIZES)]
    made = node(name, cores=cores, gib=gib, devices=devices)
    named = (replace(one, id=DeviceId(f"{one.id}-{one.kind}")) for one in made.devices)
    return replace(made, devices=tuple(named))  # as in a declared fleet, a device keeps its kind


def make_fleet(sizes: tuple[int | None, ...]) -> Event:
    """A fleet of up to four nodes."""
    return fleet(
        *(make_node(name, size) for name, size in zip(NODES, sizes, strict=True) if size is not None)
    )


_RETRIES = (
    Retry(),
    Retry(on_events=("error", "interruption"), attempts_max=3),
    Retry(on_events=("error", "interruption"), attempts_max=9, duration_ms_max=20_000),
    Retry(on_events=(), exit_codes_retry=(1,), exit_codes_fatal=(137,), attempts_max=2),
)
_CHECKPOINTS = (
    CheckpointPolicy(),
    CheckpointPolicy(enabled=True, interval_ms=30_000),
    CheckpointPolicy(enabled=True),
    CheckpointPolicy(enabled=True),
)
_GPUS: tuple[tuple[tuple[str, int], ...], ...] = (
    *((),) * 6,
    (("A100", 1),),
    (("A100", 1),),
    (("H100", 2),),
    (("A100", 1), ("H100", 1)),
    (("TPU", 1),),
)
_PARTS = (
    Resources(accelerators=(("A100|H100", 1),)),
    Resources(accelerators=(("A100", 1),), device_milli=500),
    Resources(accelerators=(("A100|H100", 1),), device_milli=250),
    Resources(accelerators=(("A100", 1),), device_milli=300, sharing="time-slice"),
    Resources(accelerators=(("H100", 1),), device_milli=140, sharing="mig"),
    Resources(accelerators=(("A100", 1),), mig_profile="3g.20gb"),
    Resources(accelerators=(("A100", 1),), mig_profile="1g.5gb"),
)
_INPUTS: tuple[tuple[str, ...], ...] = (*((),) * 8, ("w0/model",), ("w1/model",), ("w1/model", "w2/model"))


def _crowding(rng: random.Random) -> Workload:
    """A small job that can resume, for homes where the many outrank one another in a small room."""
    return job(
        rng.choice(NAMES),
        cores=rng.choice((1, 1, 2, 3)),
        ranks=rng.choice((1, 1, 1, 2)),
        priority=rng.choice((0, 1, 2, 5, 10)),
        checkpoint=rng.choice(_CHECKPOINTS[1:]),
        retry=_RETRIES[1],
    )


def draw_spec(rng: random.Random, *, crowded: bool = False) -> Workload:
    """Declarations that fill a small fleet: many can resume, some outrank others, a few can never run."""
    if crowded:
        return _crowding(rng)
    spec = job(
        rng.choice(NAMES),
        cores=rng.choice((1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 40)),
        gib=rng.choice((1, 1, 1, 2, 4)),
        ranks=rng.choice((1, 1, 1, 1, 1, 2, 2, 3)),
        gpus=rng.choice(_GPUS),
        priority=rng.choice((0, 0, 0, 5, 5, 10)),
        checkpoint=rng.choice(_CHECKPOINTS),
        retry=rng.choice(_RETRIES),
        max_duration_ms=rng.choice((None, None, None, None, 4_000)),
        artifacts=rng.choice(((), (), ("model",))),
        inputs=rng.choice(_INPUTS),
    )
    drawn = crc32(msgspec.json.encode(spec))  # a draw of its own would make every story another one
    if drawn % PARTS_ONE_IN == 0:
        amount, part = spec.resources, _PARTS[drawn // PARTS_ONE_IN % len(_PARTS)]
        spec = replace(
            spec, resources=replace(part, cpu_milli=amount.cpu_milli, memory_bytes=amount.memory_bytes)
        )
    # Nobody depends on itself: a declaration like that is refused before it gets here.
    inputs = tuple(item for item in spec.body.inputs if item.workload != spec.name)
    return replace(spec, body=replace(spec.body, inputs=inputs))


def _pick_run(home: Home, number: int) -> Run | None:
    live = [entry[0] for entry in home.snapshot.indexes.live]
    return home.snapshot.runs[live[number % len(live)]] if live else None


def _declare(home: Home, step: Step) -> list[Event]:
    assert step.spec is not None
    return [declared(step.spec)]


def _edit(home: Home, step: Step) -> list[Event]:
    """A change that takes effect in place: see `spec.diff`."""
    state = home.snapshot.workloads.get(NAMES[step.a % len(NAMES)])
    if state is None:
        return []
    was = state.spec.body.checkpoint
    fresh = CheckpointPolicy(enabled=was.enabled, interval_ms=(None, 5_000, 30_000)[step.b % 3])
    old = state.spec
    spec = job(
        old.name,
        gpus=old.resources.accelerators,
        ranks=old.body.num_nodes,
        priority=(0, 5, 10)[step.c % 3],
        retry=_RETRIES[step.b // 3 % 4],
        checkpoint=fresh,
        max_duration_ms=(None, 4_000, 9_000)[step.b // 12 % 3],
        artifacts=[item.name for item in old.body.artifacts],
        inputs=[f"{item.workload}/{item.artifact}" for item in old.body.inputs],
        cores=old.resources.cpu_milli // 1_000,
        gib=old.resources.memory_bytes >> 30,
    )
    return [declared(spec, restarts=False)]


def _stop(home: Home, step: Step) -> list[Event]:
    return [StopRequested(workload=WorkloadName(NAMES[step.a % len(NAMES)]))]


def _remove(home: Home, step: Step) -> list[Event]:
    return [RemoveRequested(workload=WorkloadName(NAMES[step.a % len(NAMES)]))]


def _fleet(home: Home, step: Step) -> list[Event]:
    """One node joins, goes, or changes size; the others stay."""
    chosen = step.a % len(NODES)
    nodes = [
        state.node
        for key, state in home.snapshot.nodes.sorted_items()
        if state.declared and key != NODES[chosen]
    ]
    if step.b % 4:
        nodes.append(make_node(NODES[chosen], step.c))
    return [fleet(*nodes)]


def _health(home: Home, step: Step) -> list[Event]:
    health = ("alive", "alive", "dead", "unknown")[step.b % 4]
    return [NodeHealth(node=NodeId(NODES[step.a % len(NODES)]), health=health)]  # type: ignore[arg-type]  # one of three


def _started(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    if run is None:
        return []
    ranks = range(len(run.ranks)) if step.b % 4 else [step.c % len(run.ranks)]
    return [RankStarted(run=run.id, rank=rank, pid=1, at_ms=home.now_ms) for rank in ranks]


def _all_started(home: Home, step: Step) -> list[Event]:
    runs = [home.snapshot.runs[entry[0]] for entry in home.snapshot.indexes.live]
    return [
        RankStarted(run=run.id, rank=rank, pid=1, at_ms=home.now_ms)
        for run in runs
        if run.state is RunState.STARTING
        for rank in range(len(run.ranks))
    ]


_EXITS: tuple[tuple[int | None, int | None, str], ...] = (
    (0, None, "exited"),
    (0, None, "exited"),
    (1, None, "exited"),
    (75, None, "exited"),
    (137, None, "exited"),
    (None, 9, "exited"),
    (None, None, "lost"),
    (None, None, "start-failed"),
    (3, None, "setup-failed"),
    (None, 9, "memory"),
)


def _exit_event(run: Run, rank: int, home: Home, step: Step) -> RankExited:
    code, signal, cause = _EXITS[step.b % len(_EXITS)]
    return RankExited(
        run=run.id,
        rank=rank,
        at_ms=home.now_ms + step.c % 3_000 - 500,
        exit_code=code,
        signal=signal,
        cause=cause,  # type: ignore[arg-type]  # one of the causes above
        completed=code == 0 and step.c % 3 == 0,
        stop_delivered=run.state is RunState.STOPPING and step.c % 4 != 0,
    )


def _exited(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    if run is None:
        return []
    ranks = range(len(run.ranks)) if step.c % 2 else [step.c // 2 % len(run.ranks)]
    events: list[Event] = []
    if step.c % 5:
        spec = home.snapshot.workloads[run.workload].spec
        events += [published_by(run, run.workload, item.name) for item in spec.body.artifacts]
    return [*events, *(_exit_event(run, rank, home, step) for rank in ranks)]


def _yielded(home: Home, step: Step) -> list[Event]:
    """Every run that was told to end obeys."""
    runs = [home.snapshot.runs[entry[0]] for entry in home.snapshot.indexes.live]
    return [
        RankExited(run=run.id, rank=rank, at_ms=home.now_ms, exit_code=75, stop_delivered=True)
        for run in runs
        if run.state is RunState.STOPPING
        for rank in range(len(run.ranks))
    ]


def _unknown(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    return [] if run is None else [RankUnknown(run=run.id, rank=step.b % len(run.ranks))]


def _saved(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    if run is None:
        return []
    save_ms = (10, 200, 210, 4_000)[step.b % 4]
    return [CheckpointSaved(run=run.id, step=step.c % 50, at_ms=home.now_ms, save_ms=save_ms, digest="d")]


def _artifact(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    return [] if run is None else [published_by(run, run.workload, "model")]


def _again(home: Home, step: Step) -> list[Event]:
    """Something of the past is reported once more."""
    late = (
        RankStarted,
        RankReady,
        RankExited,
        RankUnknown,
        CheckpointSaved,
        ArtifactPublished,
        NodeHealth,
        StopRequested,
    )
    old = [record.event for record in home.log if isinstance(record.event, late)]
    return [old[step.b % len(old)]] if old else []


def _nonsense(home: Home, step: Step) -> list[Event]:
    run = _pick_run(home, step.a)
    ghost = RunId("ghost.1")
    known = ghost if run is None else run.id
    rank = (-1, 99)[step.c % 2]
    made: tuple[Event, ...] = (
        RankStarted(run=ghost, rank=0, pid=1, at_ms=home.now_ms),
        RankExited(run=ghost, rank=0, at_ms=home.now_ms, exit_code=0),
        CheckpointSaved(run=ghost, step=1, at_ms=home.now_ms, save_ms=1, digest="d"),
        RankUnknown(run=ghost, rank=0),
        ArtifactPublished(run=ghost, workload=WorkloadName("ghost"), name="m", digest="d", size_bytes=1),
        ArtifactPublished(run=ghost, workload=WorkloadName(NAMES[0]), name="model", digest="d", size_bytes=1),
        StopRequested(workload=WorkloadName("ghost")),
        RemoveRequested(workload=WorkloadName("ghost")),
        NodeHealth(node=NodeId("ghost"), health="dead"),
        ActionFailed(decision=DecisionId("1.0"), detail="no"),
        RankStarted(run=known, rank=rank, pid=1, at_ms=home.now_ms),
        RankExited(run=known, rank=rank, at_ms=home.now_ms, exit_code=1),
        RankUnknown(run=known, rank=rank),
    )
    return [made[step.b % len(made)]]


def _policy(home: Home, step: Step) -> list[Event]:
    return [PolicySet(policy=POLICIES[step.a % len(POLICIES)])]


KINDS: dict[str, Callable[[Home, Step], list[Event]]] = {
    "declare": _declare,
    "edit": _edit,
    "stop": _stop,
    "remove": _remove,
    "fleet": _fleet,
    "health": _health,
    "started": _started,
    "all-started": _all_started,
    "exited": _exited,
    "yielded": _yielded,
    "unknown": _unknown,
    "saved": _saved,
    "artifact": _artifact,
    "again": _again,
    "nonsense": _nonsense,
    "policy": _policy,
}
_WEIGHTS = {"declare": 5, "all-started": 5, "exited": 4, "yielded": 4, "started": 2, "saved": 4, "health": 2}
_DRAWN = tuple(kind for kind in KINDS for _ in range(_WEIGHTS.get(kind, 1)))
_SERVING = tuple(
    kind for kind in ("serve", *service_steps.KINDS) for _ in range(service_steps.WEIGHTS.get(kind, 1))
)


def _draw_step(rng: random.Random, kind: str, *, crowded: bool) -> Step:
    spec = draw_spec(rng, crowded=crowded) if kind == "declare" else None
    serves = service_steps.draw_service(rng) if kind == "serve" else None
    return Step(kind, rng.randrange(1_024), rng.randrange(1_024), rng.randrange(1_024), spec, serves)


def batches(rng: random.Random, *, crowded: bool, serving: bool = False) -> Iterator[Batch]:
    """What happens after the fleet was declared, cycle by cycle, without end."""
    opening = ["declare"] * rng.randint(4, 9)
    drawn = _DRAWN
    if serving:
        opening, drawn = ["declare", "declare", "serve", "serve"], (*_DRAWN, *_SERVING, *_SERVING)
    yield Batch(0, tuple(_draw_step(rng, kind, crowded=crowded) for kind in opening))
    yield Batch(100, (_draw_step(rng, "all-started", crowded=crowded),))
    while True:
        kinds = [rng.choice(drawn) for _ in range(rng.randint(0, 4))]
        after_ms = rng.choice((0, 1_000, 2_000, 2_000, 7_000))
        yield Batch(after_ms, tuple(_draw_step(rng, kind, crowded=crowded) for kind in kinds))


def stories(longest: int = 40) -> st.SearchStrategy[Story]:
    """What may happen to a home, in at most so many cycles."""
    return st.builds(Story, st.integers(0, 2**32 - 1), st.integers(longest // 4, longest))


def told_by(story: Story) -> tuple[Home, Iterator[Batch]]:
    """The home before anything happens in it, and what will."""
    rng = random.Random(story.seed)
    crowded = rng.random() < 0.4
    kinds = 3 if crowded else len(SIZES)
    sizes = (rng.randrange(kinds), *(rng.choice((None, rng.randrange(kinds))) for _ in NODES[1:]))
    home = Home(PolicySet(policy=POLICY), make_fleet(sizes))
    serving = story.seed % 2 == 1
    return home, islice(batches(rng, crowded=crowded, serving=serving), story.length)


def play(home: Home, batch: Batch) -> None:
    """One cycle of the story."""
    news = [item for step in batch.steps for item in _happens(home, step)]
    signals = tuple(item for item in news if isinstance(item, Signal))
    home.cycle(
        *(item for item in news if not isinstance(item, Signal)), after_ms=batch.after_ms, signals=signals
    )


def _happens(home: Home, step: Step) -> Sequence[Event | Signal]:
    if step.kind == "serve":
        return service_steps.serve(step.service)
    if step.kind in service_steps.KINDS:
        return service_steps.KINDS[step.kind](home, step.a, step.b, step.c)
    return KINDS[step.kind](home, step)


def played(story: Story) -> Home:
    """The home after the whole story."""
    home, rest = told_by(story)
    for batch in rest:
        play(home, batch)
    return home
