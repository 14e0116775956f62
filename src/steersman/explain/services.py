"""Where a service stands, in a word and in a sentence, and the whole answer to `steer explain SERVICE`.

Theory of operation. What a person must know first wins: that it was told to end, that its newest declaration
was given up, that the gateway is not up, then the first of its replicas that is not ready and what that one
waits for; only then the service's own line. The votes of the signals are recomputed with autoscale's own
arithmetic, so that what is told is what is decided.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from steersman.decide.autoscale import ballot, delay_ms, desired, in_force
from steersman.decide.rollout import EXIT_CONFIG, Replica, replicas_of
from steersman.explain.forecast import forecast_of
from steersman.explain.history import history, is_of
from steersman.explain.refusals import REFUSALS_SHOWN_MAX, counts, refusals
from steersman.explain.words import describe, fix, signal_words
from steersman.explain.workload import RIVALS_SHOWN_MAX, Explanation, current_reason, in_the_way
from steersman.explain.workload import nearest as nearest_change
from steersman.model.errors import ConflictError
from steersman.model.events import Event
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code, Reason, reason
from steersman.model.service import GATEWAY_NAME
from steersman.model.snapshot import Phase, Revision, RunState, ServiceState, Snapshot, WorkloadState
from steersman.model.units import format_bytes, format_cpu, format_duration_ms

GIVEN_UP = frozenset({Code.REPLICA_CRASHED, Code.REPLICA_STUCK})
"""Why a revision is given up; a first one, which has nothing to fall back to, is said to be failing."""
WAITING = frozenset({Phase.DECLARED, Phase.QUEUED})


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica that ended badly left behind: why it ended, as in `RankExited`, and its log's last line;
    empty where nobody knows."""

    cause: str = ""
    line: str = ""


Heard = Mapping[str, Told]
"""Of replicas, and of the gateway, by name."""
NOTHING_HEARD: Heard = MappingProxyType({})


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service stands. `phase` is one of: serving, rolling, starting, waiting, failing,
    failed, stopping, stopped, scaled-to-zero. `ready` counts the newest revision's replicas that answer,
    `answering` all of them; `wanted` is how many of the newest it should have. `subject` is what the reason
    is about, `failing` who ended badly, when that is the reason."""

    phase: str
    ready: int
    answering: int
    wanted: int
    code: str
    why: str
    fix: str
    subject: str
    failing: str = ""


def standing(
    snapshot: Snapshot, state: ServiceState, *, listening: bool, heard: Heard = NOTHING_HEARD
) -> Standing:
    """Where it stands; `listening`: somebody takes requests for it."""
    replicas = replicas_of(snapshot, state)
    newest = newest_revision(state)
    mine = [item for item in replicas if newest is not None and item.ref.revision == newest.number]
    gateway = None if listening else snapshot.workloads.get(GATEWAY_NAME)
    recorded, subject = _reason(snapshot, state, mine, gateway)
    why = None if recorded is None else caused(snapshot, recorded, heard)
    text = _words(state, why, subject, failed=recorded is state.failed_reason)
    return Standing(
        phase=_phase(state, replicas, gateway, listening=listening),
        ready=sum(item.ready for item in mine),
        answering=sum(item.ready for item in replicas),
        wanted=wanted(state),
        code="" if why is None else why.code.value,
        why=text + ("" if listening else _without_gateway(state, replicas, subject)),
        fix="" if why is None else fix(why, subject) or "",
        subject=subject,
        failing="" if why is None else _failing(why, subject),
    )


def newest_revision(state: ServiceState) -> Revision | None:
    """What is to serve: the one on its way, else the one that serves."""
    return state.serving if state.rolling is None else state.rolling


def wanted(state: ServiceState) -> int:
    """How many replicas of the newest revision there should be; one at least takes over a rollout."""
    return state.target if state.rolling is None else max(state.target, 1)


def given_up(state: ServiceState) -> bool:
    """Whether the newest declaration was tried and does not come up."""
    if state.failed is not None and state.rolling is None:
        return state.failed.generation == state.generation
    first = state.rolling is not None and state.serving is None
    why = state.reason
    return first and why is not None and why.code in GIVEN_UP and not _renewed(state)


def _renewed(state: ServiceState) -> bool:
    """Whether it was declared again since, and nothing was decided on that yet."""
    return state.rolling is not None and state.rolling.generation != state.generation


# Who failed.


def culprits(snapshot: Snapshot) -> Iterator[str]:
    """The replicas that ended badly and are why a service is not as it should be; the gateway too when it is
    one of the reasons. Some may be forgotten already. In order, each once."""
    found: set[str] = set()
    for _, state in snapshot.services.sorted_items():
        reasons = (state.failed_reason, state.reason)
        found |= {_failing(why, "") for why in reasons if why is not None}
        found |= {ref.name for ref in state.replicas if _backs_off(snapshot, ref.name)}
    if _backs_off(snapshot, GATEWAY_NAME):
        found.add(GATEWAY_NAME)
    yield from sorted(found - {""})


def _backs_off(snapshot: Snapshot, name: WorkloadName) -> bool:
    job = snapshot.workloads.get(name)
    return job is not None and job.phase is Phase.BACKOFF


def _failing(why: Reason, subject: str) -> str:
    """Whose log tells more of it."""
    if why.code in GIVEN_UP:
        return str(dict(why.facts).get("replica", ""))
    return subject if why.code is Code.RETRY_REPLICA else ""


def caused(snapshot: Snapshot, why: Reason, heard: Heard) -> Reason:
    """The reason, with how its replica ended: a decision on a revision records only with which code."""
    facts = dict(why.facts)
    if why.code is not Code.REPLICA_CRASHED or "cause" in facts:
        return why
    name = str(facts.get("replica", ""))
    job = snapshot.workloads.get(name)
    end = None if job is None or job.last_run is None else job.last_run.ranks[0].end
    cause = end.cause if end is not None else heard.get(name, Told()).cause
    return replace(why, facts=tuple(sorted({**facts, "cause": cause}.items()))) if cause else why


# The word.


def _phase(
    state: ServiceState, replicas: list[Replica], gateway: WorkloadState | None, *, listening: bool
) -> str:
    if state.removing or state.stop_requested:
        return "stopping" if state.removing or state.replicas else "stopped"
    if state.rolling is not None and state.serving is not None:
        return "rolling"
    if any(item.ready for item in replicas):
        fails = gateway is not None and gateway.phase is Phase.BACKOFF
        return "serving" if listening else "failing" if fails else "starting"
    return _phase_without(state, [item.job.phase for item in replicas])


def _phase_without(state: ServiceState, phases: list[Phase]) -> str:
    """Of a service none of whose replicas answers."""
    if newest_revision(state) is None:
        return "failed" if given_up(state) else "waiting"
    if state.target == 0 and state.rolling is None:
        return "scaled-to-zero"
    if given_up(state) or Phase.BACKOFF in phases:
        return "failing"
    return "waiting" if phases and all(phase in WAITING for phase in phases) else "starting"


# The sentence.


def _reason(
    snapshot: Snapshot, state: ServiceState, mine: list[Replica], gateway: WorkloadState | None
) -> tuple[Reason | None, str]:
    """The reason to tell, and the name of what it is about."""
    name = state.spec.name
    if state.removing or state.stop_requested:
        return reason(Code.REMOVED if state.removing else Code.STOP_REQUESTED), name
    if state.failed is not None and given_up(state):
        return state.failed_reason, name
    if given_up(state):
        return state.reason, name
    lacking = [item for item in mine if not item.ready]
    if lacking and sum(item.ready for item in mine) < wanted(state):
        worst = min(lacking, key=lambda item: (_trouble(item.job), item.ref.name))
        why = current_reason(snapshot, worst.job)
        if why is not None and worst.job.phase is not Phase.ACTIVE:
            return why, worst.ref.name
    elif gateway is not None and gateway.phase is not Phase.ACTIVE:
        return current_reason(snapshot, gateway), gateway.spec.name
    return state.reason, name


def _trouble(job: WorkloadState) -> int:
    """What to tell first: a replica that fails, one that waits, one that is on its way."""
    order = (Phase.BACKOFF, Phase.DECLARED, Phase.QUEUED, Phase.ACTIVE)
    return order.index(job.phase) if job.phase in order else len(order)


def _words(state: ServiceState, why: Reason | None, subject: str, *, failed: bool) -> str:
    if why is None:
        return "not judged yet"
    text = describe(why)
    if state.rolling is not None and not state.target and why.code is Code.SERVING:
        return (
            f"one replica starts to see that revision {state.rolling.number} can be served; "
            "then none is kept while nobody asks"
        )
    if failed and state.failed is not None and given_up(state):
        kept = "" if state.serving is None else f"; revision {state.serving.number} serves on"
        return f"revision {state.failed.number} was given up: {text}{kept}"
    if subject == state.spec.name:
        return text
    what = "the gateway" if subject == GATEWAY_NAME else subject
    return f"{what}: {text}"


def _without_gateway(state: ServiceState, replicas: list[Replica], subject: str) -> str:
    """What to add while replicas answer, and nobody takes requests for them."""
    ends = state.removing or state.stop_requested
    told = ends or subject == GATEWAY_NAME or not any(item.ready for item in replicas)
    return "" if told else "; the gateway does not listen yet"


# The whole answer.


def explain_service(
    snapshot: Snapshot,
    name: str,
    records: Iterable[tuple[int, int, Event]],
    *,
    listening: bool = True,
    heard: Heard = NOTHING_HEARD,
) -> Explanation:
    """Explain one service; `records` are (position, time, event) of the journal, in order.

    Raises ConflictError when there is no such service.
    """
    state = snapshot.services.get(name)
    if state is None:
        raise ConflictError(f"there is no service {name!r}", hint="steer status", code="unknown-workload")
    found = standing(snapshot, state, listening=listening, heard=heard)
    queued = next((item.job for item in replicas_of(snapshot, state) if item.job.phase is Phase.QUEUED), None)
    lacks = () if queued is None else refusals(snapshot, queued)
    blocked = snapshot.workloads.get(WorkloadName(found.subject))
    cure = None if blocked is None else nearest_change(snapshot, blocked)
    return Explanation(
        name=name,
        phase=found.phase,
        where=_where(state, found),
        why=found.why,
        size=_size(state),
        code=found.code,
        fix=cure or found.fix or None,
        facts=tuple(_facts(snapshot, state, heard)),
        refused=tuple((code.value, count) for code, count in counts(lacks)),
        refusals=lacks[:REFUSALS_SHOWN_MAX],
        rivals=() if queued is None else in_the_way(snapshot, queued)[:RIVALS_SHOWN_MAX],
        moments=history(name, records),
        forecast=forecast_of(snapshot, state),
    )


def _where(state: ServiceState, found: Standing) -> str:
    parts = [f"{found.answering} of {len(state.replicas)} replica(s) answer"]
    if state.serving is not None:
        parts.append(f"revision {state.serving.number} serves")
    if state.rolling is not None:
        parts.append(f"revision {state.rolling.number} is on its way with {found.ready} ready")
    return ", ".join(parts)


def _size(state: ServiceState) -> str:
    scaling, asked = state.spec.scaling, state.spec.resources
    each = f"{format_cpu(asked.cpu_milli)} core(s), {format_bytes(asked.memory_bytes)} of memory each"
    if scaling.min_replicas == scaling.max_replicas:
        return f"{state.target} replica(s) of {each}, as declared"
    return f"{state.target} of {scaling.min_replicas} to {scaling.max_replicas} replicas of {each}"


def _facts(snapshot: Snapshot, state: ServiceState, heard: Heard) -> Iterator[str]:
    yield from _scaling_facts(snapshot, state)
    yield from _revision_facts(snapshot, state, heard)
    for name, told in sorted(heard.items()):
        if told.line and is_of(name, state.spec.name):
            yield f"{name} said last: {told.line}"
    for item in replicas_of(snapshot, state):
        yield f"{item.ref.name} (revision {item.ref.revision}): {replica_words(snapshot, item)}"
    retiring = [ref.name for ref in state.replicas if ref.retiring]
    if retiring:
        yield f"draining: {', '.join(retiring)}"
    if state.cold_start_ms is not None:
        yield f"the last replica took {format_duration_ms(state.cold_start_ms)} from its decision to ready"


def _scaling_facts(snapshot: Snapshot, state: ServiceState) -> Iterator[str]:
    scaling = state.spec.scaling
    if scaling.min_replicas == scaling.max_replicas or state.removing or state.stop_requested:
        return
    vote = desired(snapshot, state)
    if vote.replicas == state.target:
        yield f"wants {state.target}, as it has: {describe(vote.reason)}"
    else:
        yield f"wants {vote.replicas}{_delay(snapshot, state, vote.replicas)}: {describe(vote.reason)}"
    votes = ballot(snapshot, in_force(state, snapshot.now_ms)).votes
    for each in votes if state.target or len(votes) > 1 else ():  # one alone is told already
        yield f"a vote for {each.replicas}: {describe(each.reason)}"
    found = forecast_of(snapshot, state)
    yield from () if found is None else found.words
    for signal in state.signals:
        ago = _about(max(snapshot.now_ms - signal.at_ms, 0))
        yield f"{signal_words(signal.name, signal.value)} (as of {ago} ago)"


def _delay(snapshot: Snapshot, state: ServiceState, vote: int) -> str:
    """Since when, and how much of the delay is left; empty before the wish is recorded."""
    if state.desired == state.target or (state.desired > state.target) != (vote > state.target):
        return ""
    since_ms = max(snapshot.now_ms - state.desired_ms, 0)
    left_ms = max(delay_ms(state.spec.scaling, state.target, vote) - since_ms, 0)
    return f" since {_about(since_ms)}, waits {_about(left_ms)}"


def _about(duration_ms: int) -> str:
    """A duration in whole seconds once it is longer than one."""
    return format_duration_ms(duration_ms if duration_ms < 1_000 else duration_ms // 1_000 * 1_000)


def _revision_facts(snapshot: Snapshot, state: ServiceState, heard: Heard) -> Iterator[str]:
    for word, revision in (("serves", state.serving), ("is on its way", state.rolling)):
        if revision is not None:
            model = "" if revision.model_digest is None else f", model {revision.model_digest}"
            yield f"revision {revision.number} {word}{model}"
    if state.failed is not None and state.failed_reason is not None:
        why = describe(caused(snapshot, state.failed_reason, heard))
        yield f"revision {state.failed.number} was given up: {why}{_cause(state.failed_reason)}"


def _cause(why: Reason) -> str:
    """What an exit code of the data plane means, and where to look."""
    facts = dict(why.facts)
    hopeless = (
        " (it says that its model can never be loaded)" if facts.get("exit_code") == EXIT_CONFIG else ""
    )
    return f"{hopeless}; hint: steer logs {facts['replica']}" if "replica" in facts else hopeless


def replica_words(snapshot: Snapshot, item: Replica) -> str:
    """What one replica does now."""
    run = item.run
    if run is None or run.state is RunState.ENDED:
        why = current_reason(snapshot, item.job)
        return item.job.phase.value if why is None else f"{item.job.phase.value}, {describe(why)}"
    nodes = ", ".join(sorted({rank.placement.node for rank in run.ranks}))
    if item.ready:
        return f"ready on {nodes}"
    if run.state is RunState.RUNNING and run.started_ms is not None:
        return f"loads its model on {nodes} since {_about(max(snapshot.now_ms - run.started_ms, 0))}"
    return f"{run.state.value} on {nodes}"
