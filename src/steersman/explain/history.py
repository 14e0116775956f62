"""What happened to one workload, from the journal: one line an event, with its time, decision and reason."""

from collections.abc import Iterable, Iterator
from typing import assert_never

import msgspec
from msgspec.structs import replace

from steersman.explain.words import describe, exit_words
from steersman.model.decisions import (
    Decision,
    FailRollout,
    Finish,
    Learn,
    Promote,
    Reserve,
    Retire,
    Revise,
    Scale,
    ServiceDecision,
    SetCheckpointInterval,
    Spawn,
    Start,
    Stop,
)
from steersman.model.events import (
    ArtifactPublished,
    CheckpointSaved,
    Decided,
    Event,
    NodeHealth,
    RankExited,
    RankReady,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.ids import NodeId, decision_id
from steersman.model.units import format_bytes, format_duration_ms

EXIT_YIELDED = 75


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `decision` is empty for what nobody here decided."""

    position: int
    at_ms: int
    words: str
    decision: str = ""
    code: str = ""
    run: str = ""


def history(name: str, records: Iterable[tuple[int, int, Event]]) -> tuple[Moment, ...]:
    """The moments of one workload, from (position, time, event) in order; checkpoints in a row are one."""
    moments: list[Moment] = []
    places: dict[tuple[str, int], NodeId] = {}
    for position, at_ms, event in records:
        own = _moments(name, position, at_ms, event)
        for moment in (*own, *_lost_with_node(name, places, position, at_ms, event)):
            if moments and _same_saving(moments[-1], moment):
                moments[-1] = moment
            else:
                moments.insert(_place(moments, moment), moment)
    return tuple(moments)


def _place(moments: list[Moment], moment: Moment) -> int:
    """Where it belongs: what a run left behind is stored after it has ended, and journaled before its end."""
    at = len(moments)
    while at and moment.code == "rank-exited" and _stored_after(moments[at - 1], moment):
        at -= 1
    return at


def _stored_after(before: Moment, end: Moment) -> bool:
    return before.code == "artifact-published" and before.run == end.run and before.at_ms > end.at_ms


def _same_saving(before: Moment, after: Moment) -> bool:
    return before.code == after.code == "checkpoint-saved" and before.run == after.run


def _moments(name: str, position: int, at_ms: int, event: Event) -> Iterator[Moment]:
    if isinstance(event, Decided):
        for ordinal, decision in enumerate(event.decisions):
            if is_of(decision.workload, name):
                moment = _decided(position, at_ms, str(decision_id(event.observed_at, ordinal)), decision)
                own = decision.workload == name
                yield moment if own else replace(moment, words=f"{decision.workload}: {moment.words}")
        return
    words = _words(name, event)
    if words is not None:
        code, text, run = words
        told_ms = event.at_ms if isinstance(event, RankStarted | RankReady | RankExited) else 0
        yield Moment(position=position, at_ms=told_ms or at_ms, words=text, code=code, run=run)


def _lost_with_node(
    name: str, places: dict[tuple[str, int], NodeId], position: int, at_ms: int, event: Event
) -> Iterator[Moment]:
    """What a node takes with it that is declared dead. `places`: where each rank is that has not ended; kept
    up to date here."""
    match event:
        case Decided():
            for decision in event.decisions:
                if isinstance(decision, Start) and is_of(decision.workload, name):
                    nodes = enumerate(placement.node for placement in decision.placements)
                    places |= {(decision.run, rank): node for rank, node in nodes}
        case RankExited():
            places.pop((event.run, event.rank), None)
        case NodeHealth(health="dead"):
            for run, rank in sorted(key for key, node in places.items() if node == event.node):
                del places[run, rank]
                words = _of_owner(name, run, f"rank {rank} was lost: node {event.node} was declared dead")
                yield Moment(position=position, at_ms=at_ms, words=words, code="rank-exited", run=run)
        case _:
            pass


def _decided(position: int, at_ms: int, decision_name: str, decision: Decision) -> Moment:
    run = decision.run if isinstance(decision, Start | Stop | SetCheckpointInterval) else ""
    return Moment(
        position=position,
        at_ms=at_ms,
        words=decision_words(decision),
        decision=decision_name,
        code=decision.reason.code.value,
        run=run,
    )


def is_of(subject: str, name: str) -> bool:
    """Whether it is that name, or a replica of the service of that name."""
    owner, _, number = subject.rpartition(".")
    return subject == name or (owner == name and number.isdecimal())


def decision_words(decision: Decision) -> str:
    """What was decided, and why, in one line."""
    why = describe(decision.reason)
    text = why
    match decision:
        case Start():
            text = f"start run {decision.run}: {why}"
        case Stop():
            text = f"end run {decision.run} with {format_duration_ms(decision.grace_ms)} notice: {why}"
        case Reserve():
            text = why if decision.reservations else f"lets go of the room kept for it: {why}"
        case Finish():
            text = why if why == decision.outcome else f"{decision.outcome}: {why}"
        case Scale() | Learn() | Revise() | Promote() | FailRollout() | Spawn() | Retire():
            text = _service_words(decision, why)
        case _:
            pass
    return text


def _service_words(decision: ServiceDecision, why: str) -> str:
    match decision:
        case Scale():
            wants = "" if decision.desired == decision.target else f", {decision.desired} wanted"
            return f"{_count(decision.target)}{wants}: {why}"
        case Revise():
            return f"begin revision {decision.revision}: {why}"
        case Promote() | Learn():
            return why
        case FailRollout():
            return f"give up revision {decision.revision}; what served before, if anything, serves on: {why}"
        case Spawn():
            replica = f" of revision {decision.revision}" if decision.revision else ""
            return f"add {decision.job.name}{replica}: {why}"
        case Retire():
            return f"drain and end {decision.replica}: {why}"
        case _:
            assert_never(decision)


def _count(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"


def _words(name: str, event: Event) -> tuple[str, str, str] | None:
    """(code, words, run) of an event that concerns the workload or service."""
    run = getattr(event, "run", None)
    if isinstance(run, str):
        return _words_of_run(name, run, event)
    match event:
        case WorkloadDeclared() if event.workload.name == name:
            return "declared", f"declared, priority {event.workload.priority}", ""
        case ServiceDeclared() if event.service.name == name:
            scaling = event.service.scaling
            least, most = scaling.min_replicas, scaling.max_replicas
            size = _count(most) if least == most else f"{least} to {_count(most)}"
            return "declared", f"declared, priority {event.service.priority}, {size}", ""
        case StopRequested() if event.workload == name:
            return "stop-requested", "a person asked it to stop", ""
        case RemoveRequested() if event.workload == name:
            return "remove-requested", "a person took its declaration down", ""
    return None


def _words_of_run(name: str, run: str, event: Event) -> tuple[str, str, str] | None:
    """Of a run of its own, or of a replica's, which is then named."""
    found = _run_words(event) if is_of(run.rpartition(".")[0], name) else None
    if found is None:
        return None
    code, text = found
    return code, _of_owner(name, run, text), run


def _of_owner(name: str, run: str, text: str) -> str:
    owner = run.rpartition(".")[0]
    return text if owner == name else f"{owner}: {text.removeprefix('rank 0 ')}"


def _run_words(event: Event) -> tuple[str, str] | None:
    found: tuple[str, str] | None = None
    match event:
        case RankStarted():
            held = f", limits held by {event.limits}" if event.limits else ""
            found = "rank-started", f"rank {event.rank} runs (process {event.pid}{held})"
        case RankReady():
            found = "rank-ready", f"answers requests; loading took {format_duration_ms(event.load_ms)}"
        case RankExited():
            found = "rank-exited", f"rank {event.rank} {_exit_words(event)}"
        case RankUnknown():
            words = f"rank {event.rank}: nobody can tell whether it lives; nothing is decided"
            found = "rank-unknown", words
        case CheckpointSaved():
            took = format_duration_ms(event.save_ms)
            found = "checkpoint-saved", f"checkpoint of step {event.step} saved in {took}"
        case ArtifactPublished():
            size = format_bytes(event.size_bytes)
            found = "artifact-published", f"artifact {event.name} stored: {size}, {event.digest}"
        case _:
            pass
    return found


def _exit_words(event: RankExited) -> str:
    if event.cause == "lost":
        text = "was lost"
    elif event.cause in ("start-failed", "not-taken"):
        text = "could not be started" + (" there" if event.cause == "not-taken" else "")
    elif event.cause == "memory":
        text = "was ended: it used more memory than it asked for"
    elif event.signal is not None:
        text = f"was ended by signal {event.signal}" + (
            " as told" if event.stop_delivered else ", not by Steersman"
        )
    elif event.exit_code == EXIT_YIELDED:
        text = "saved and yielded (exit 75)"
    else:
        text = exit_words(event.exit_code or 0)
    return f"{text}: {event.detail}" if event.detail else text
