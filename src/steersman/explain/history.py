"""What happened to one workload, from the journal: one line an event, with its time, decision and reason."""

from collections.abc import Iterable, Iterator

import msgspec

from steersman.explain.words import describe, exit_words
from steersman.model.decisions import (
    Decision,
    Finish,
    Hold,
    Requeue,
    Reserve,
    SetCheckpointInterval,
    Start,
    Stop,
)
from steersman.model.events import (
    ArtifactPublished,
    CheckpointSaved,
    Decided,
    Event,
    RankExited,
    RankStarted,
    RankUnknown,
    RemoveRequested,
    StopRequested,
    WorkloadDeclared,
)
from steersman.model.ids import decision_id
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
    for position, at_ms, event in records:
        for moment in _moments(name, position, at_ms, event):
            if moments and _same_saving(moments[-1], moment):
                moments[-1] = moment
            else:
                moments.append(moment)
    return tuple(moments)


def _same_saving(before: Moment, after: Moment) -> bool:
    return before.code == after.code == "checkpoint-saved" and before.run == after.run


def _moments(name: str, position: int, at_ms: int, event: Event) -> Iterator[Moment]:
    if isinstance(event, Decided):
        for ordinal, decision in enumerate(event.decisions):
            if decision.workload == name:
                yield _decided(position, at_ms, str(decision_id(event.observed_at, ordinal)), decision)
        return
    words = _words(name, event)
    if words is not None:
        code, text, run = words
        told_ms = event.at_ms if isinstance(event, RankStarted | RankExited) else 0
        yield Moment(position=position, at_ms=told_ms or at_ms, words=text, code=code, run=run)


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


def decision_words(decision: Decision) -> str:
    """What was decided, and why, in one line."""
    why = describe(decision.reason)
    match decision:
        case Start():
            return f"start run {decision.run}: {why}"
        case Stop():
            return f"end run {decision.run} with {format_duration_ms(decision.grace_ms)} notice: {why}"
        case Requeue() | Hold():
            return why
        case Reserve():
            return why if decision.reservations else f"lets go of the room kept for it: {why}"
        case Finish():
            return why if why == decision.outcome else f"{decision.outcome}: {why}"
        case _:
            return why


def _words(name: str, event: Event) -> tuple[str, str, str] | None:
    """(code, words, run) of an event that concerns the workload."""
    if isinstance(event, WorkloadDeclared) and event.workload.name == name:
        priority = event.workload.priority
        return "declared", f"declared, priority {priority}", ""
    if isinstance(event, StopRequested) and event.workload == name:
        return "stop-requested", "a person asked it to stop", ""
    if isinstance(event, RemoveRequested) and event.workload == name:
        return "remove-requested", "a person took its declaration down", ""
    run = getattr(event, "run", None)
    if not isinstance(run, str) or run.rpartition(".")[0] != name:
        return None
    return _run_words(run, event)


def _run_words(run: str, event: Event) -> tuple[str, str, str] | None:
    match event:
        case RankStarted():
            held = f", limits held by {event.limits}" if event.limits else ""
            return "rank-started", f"rank {event.rank} runs (process {event.pid}{held})", run
        case RankExited():
            return "rank-exited", f"rank {event.rank} {_exit_words(event)}", run
        case RankUnknown():
            return (
                "rank-unknown",
                f"rank {event.rank}: nobody can tell whether it lives; nothing is decided",
                run,
            )
        case CheckpointSaved():
            took = format_duration_ms(event.save_ms)
            return "checkpoint-saved", f"checkpoint of step {event.step} saved in {took}", run
        case ArtifactPublished():
            size = format_bytes(event.size_bytes)
            return "artifact-published", f"artifact {event.name} stored: {size}, {event.digest}", run
        case _:
            return None


def _exit_words(event: RankExited) -> str:
    if event.cause == "lost":
        text = "was lost"
    elif event.cause == "start-failed":
        text = "could not be started"
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
