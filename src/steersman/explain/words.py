"""One plain sentence for every reason, and for every refusal the nearest fix.

Rule 1: the tables below are total over `Code`; a test proves it. Rule 2: amounts are shown in the units that
people write. Rule 3: a fact that an older build did not record is left out, never invented.
"""

from collections.abc import Callable, Mapping

from steersman.explain.backfill_words import BACKFILL_WORDS, waits_behind_fix
from steersman.explain.spot_words import SPOT_FIXES, SPOT_WORDS
from steersman.explain.too_large import too_large, too_large_fix
from steersman.model.queue import CPUS, GPU_HOUR, MEMORY, USD
from steersman.model.reasons import Code, Reason
from steersman.model.signals import ARRIVALS, CAPACITY, LATENCY, ONGOING, QUEUED, SERVED
from steersman.model.units import format_bytes, format_cpu, format_duration_ms

Facts = Mapping[str, str | int]
SOME = "NAME"
"""What stands for a name that the caller does not know."""
_NAME = "name of the subject"
"""The key under which the tables of fixes find it; no fact is called so."""


def describe(reason: Reason) -> str:
    """What the reason says, in one sentence without a full stop."""
    facts = dict(reason.facts)
    text = _WORDS[reason.code](facts)
    counts = ", ".join(f"{count} x {_LACKS.get(code, code.value)}" for code, count in reason.counts)
    return f"{text} ({counts})" if counts else text


def fix(reason: Reason, name: str = SOME) -> str | None:
    """What a person could do about a refusal of the workload or service of that name; None for nothing."""
    make = _FIXES.get(reason.code)
    return None if make is None else make({**dict(reason.facts), _NAME: name})


def _ms(facts: Facts, name: str) -> str:
    return format_duration_ms(int(facts.get(name, 0)))


def exit_words(code: int) -> str:
    """An exit code; above 128 it is how a shell says that its program was ended by a signal."""
    return f"exited with {code}" + (f" (ended by signal {code - 128})" if 128 < code <= 128 + 64 else "")


def _end(facts: Facts) -> str:
    if "signal" in facts:
        return f"ended by signal {facts['signal']}"
    if "exit_code" in facts:
        return exit_words(int(facts["exit_code"]))
    causes = {
        "lost": "its process was lost",
        "start-failed": "could not be started",
        "not-taken": "was not taken by its node",
        "setup-failed": "its setup failed",
        "memory": "used more memory than it asked for",
    }
    return causes.get(str(facts.get("cause", "")), "ended")


def _end_of(facts: Facts) -> str:
    rank = f"rank {facts['rank']} " if "rank" in facts else ""
    return rank + _end_by(facts)


def _end_by(facts: Facts) -> str:
    cause = str(facts.get("cause", "exited"))
    special = {"setup-failed": "setup failed: ", "memory": "out of its memory: ", "lost": "lost: "}
    return special.get(cause, "") + _end(facts)


def _placed(facts: Facts) -> str:
    resumed = f"; the newest checkpoint is of step {facts['saved_step']}" if "saved_step" in facts else ""
    if int(facts.get("ranks", 1)) > 1:
        nodes = f"{facts.get('nodes', 1)} node(s), the first {facts.get('node')}"
        return f"placed: {facts['ranks']} ranks on {nodes}{resumed}"
    why = "apart from the others" if "apart" in facts else "which takes the least from what is still to come"
    where = f"placed on {facts.get('node', 'a node')}, {why}"
    return f"{where}{_sharing(facts)}{resumed}"


def _sharing(facts: Facts) -> str:
    """How it has its device, and what that keeps apart."""
    if facts.get("sharing") == "mig":
        return f"; a MIG instance {facts.get('profile')}: memory and faults are its own"
    if facts.get("sharing") == "time-slice":
        share = int(facts.get("milli", 0)) / 10
        return f"; time slices, {share:g} % of a device: nothing keeps it and its neighbours apart"
    return ""


def _preempted(facts: Facts) -> str:
    lost = format_duration_ms(int(facts.get("lost_core_ms", 0)))
    whose = f" of queue {facts['by_queue']}" if "by_queue" in facts else ""
    return (
        f"yields to {facts.get('by')}{whose} "
        f"(priority {facts.get('by_priority')} over {facts.get('priority')}); "
        f"cheapest in work at stake: {lost} of core time since its last checkpoint"
    )


def _out_ranked(facts: Facts) -> str:
    lost = format_duration_ms(int(facts.get("lost_core_ms", 0)))
    return (
        f"yields its turn to {facts.get('by')} of the same priority, which is likelier to end soon for what "
        f"it takes: jobs like that take {_ms(facts, 'by_typical_ms')} and it has had "
        f"{_ms(facts, 'by_attained_ms')}, jobs like this take {_ms(facts, 'typical_ms')} and it has had "
        f"{_ms(facts, 'attained_ms')}; {lost} of core time are since its last checkpoint"
    )


def _amount(facts: Facts, name: str) -> str:
    """An amount of the resource of a quota."""
    return amount_words(str(facts.get("resource", CPUS)), int(facts.get(name, 0)))


def amount_words(resource: str, amount: int) -> str:
    """So much of the resource of a quota: ``2 cores``, ``8GiB``, ``4 x A100``."""
    if resource == CPUS:
        return f"{format_cpu(amount)} cores"
    return format_bytes(amount) if resource == MEMORY else f"{amount / 1000:g} x {resource}"


def _over_quota(facts: Facts) -> str:
    return (
        f"queue {facts.get('queue')} holds {_amount(facts, 'used')} of its {_amount(facts, 'nominal')} and "
        f"may hold {_amount(facts, 'free')} more now; this asks for {_amount(facts, 'asked')}"
    )


def _over_quota_fix(facts: Facts) -> str:
    if int(facts.get("asked", 0)) > int(facts.get("most", 0)):
        return (
            f"ask for at most {_amount(facts, 'most')}, all that queue {facts.get('queue')} could ever hold, "
            "or raise its nominal_quota or borrowing_limit"
        )
    return f"wait, or raise nominal_quota or borrowing_limit of queue {facts.get('queue')} (kind: queue)"


def _spent(facts: Facts) -> str:
    if facts.get("resource") == USD:
        return f"{int(facts.get('limit', 0)) / 1_000_000:.2f} USD"
    return f"{int(facts.get('limit', 0)) / GPU_HOUR:.3g} GPU-hours"


def _budget(facts: Facts) -> str:
    again = f"; the next period begins in {_ms(facts, 'left_ms')}" if "left_ms" in facts else ""
    return f"the budget of {facts.get('owner')}, {_spent(facts)}, is used up{again}"


def _budget_fix(facts: Facts) -> str:
    return f"raise budget of {facts.get('owner')} and declare it again" + (
        ", or wait for the next period" if "left_ms" in facts else ""
    )


def _resumes(facts: Facts) -> str:
    step = int(facts.get("saved_step", -1))
    return "yielded; queued again" + (f"; saved up to step {step}" if step >= 0 else "; nothing was saved")


def _input(facts: Facts) -> str:
    return f"waits for artifact {facts.get('artifact')} of {facts.get('workload')} ({facts.get('phase')})"


def _milli(facts: Facts, name: str) -> str:
    return f"{int(facts.get(name, 0)) / 1000:.3g}"


def _requests(facts: Facts, name: str) -> str:
    return f"{_milli(facts, name)} request{'' if int(facts.get(name, 0)) == 1000 else 's'}"


def _us(facts: Facts, name: str) -> str:
    return f"{int(facts.get(name, 0)) / 1000:.3g} ms"


def _replicas(facts: Facts, name: str) -> str:
    count = int(facts.get(name, 0))
    return f"{count} replica{'' if count == 1 else 's'}"


def _are(facts: Facts, name: str) -> str:
    return "is" if int(facts.get(name, 0)) == 1 else "are"


def _of_revision(facts: Facts) -> str:
    return f", of revision {facts['revision']}" if "revision" in facts else ""


def _bounds(facts: Facts) -> str:
    if "replicas" in facts:
        return f"{_replicas(facts, 'replicas')}, as declared"
    return f"declared are at least {facts.get('least', 0)} and at most {_replicas(facts, 'most')}"


_SIGNALS: Mapping[str, str] = {
    ONGOING: "the number of requests under way",
    QUEUED: "the number of requests that wait",
    LATENCY: "the latency",
    ARRIVALS: "the rate of requests",
    SERVED: "the rate of answers",
    CAPACITY: "what one replica can do",
}


def _signal(facts: Facts) -> str:
    name = str(facts.get("signal", "a signal"))
    return _SIGNALS.get(name, name)


def signal_words(name: str, value: int | None) -> str:
    """What a signal says now."""
    if value is None:
        return f"{_SIGNALS.get(name, name)}: not known"
    amount = f"{value / 1000:.3g} ms" if name == LATENCY else f"{value / 1000:.3g}"
    rate = " a second" if name in (ARRIVALS, SERVED, CAPACITY) else ""
    return f"{_SIGNALS.get(name, name)}: {amount}{rate}"


def _forecast(facts: Facts) -> str:
    state = {
        "warm-up": "too little has been seen to judge by; ",
        "unseen": "more comes than ever, and it may go on rising; ",
        "held": "what was wanted a moment ago is kept; ",
    }.get(str(facts.get("state")), "")
    return (
        f"forecast: {state}{_requests(facts, 'expected_milli')} a second expected, headroom "
        f"{int(facts.get('headroom_milli', 0)) / 10:.3g} %, "
        f"one replica does {_milli(facts, 'capacity_milli')}"
    )


def _infra(facts: Facts) -> str:
    named = facts.get("infra")
    return f"no node of {f'`infra: {named}`' if named else 'the `infra` that it names'} takes work now"


def _always(text: str) -> Callable[[Facts], str]:
    return lambda _: text


_LACKS: Mapping[Code, str] = {
    Code.NO_DEVICES: "too few free devices",
    Code.NO_CORES: "too few free cores",
    Code.NO_MEMORY: "too little free memory",
    Code.NO_NODES: "takes no work",
    Code.NO_INFRA: "is not of the infrastructure it names",
}

_WORDS: Mapping[Code, Callable[[Facts], str]] = {
    Code.ADMITTED: _always("may run"),
    Code.REFUSED_TOO_LARGE: too_large,
    Code.WAITING_INPUT: _input,
    Code.INPUT_FAILED: lambda facts: (
        f"its input cannot come: artifact {facts.get('artifact')} of {facts.get('workload')} "
        f"({facts.get('phase')})"
    ),
    Code.STOP_REQUESTED: _always("told to stop by a person"),
    Code.REMOVED: _always("its declaration was removed"),
    Code.DURATION_EXCEEDED: lambda facts: (
        f"ran longer than its max_duration of {_ms(facts, 'max_duration_ms')}"
    ),
    Code.SPEC_CHANGED: _always("its declaration changed, which needs a new run"),
    Code.PLACED: _placed,
    Code.NO_NODES: _always("no node of the fleet takes work"),
    Code.NO_CORES: _always("no node has enough free cores now"),
    Code.NO_MEMORY: _always("no node with enough free cores has enough free memory now"),
    Code.NO_DEVICES: _always("no node has enough free devices of the kind now"),
    Code.NO_SHARE: _always("no device of the kind has so large a part free now"),
    Code.NO_POOL: _always("no node of a pool where it may go takes work"),
    Code.NO_INFRA: _infra,
    Code.NO_ROOM_FOR_GANG: _always("some ranks would fit now, but not all of them together"),
    Code.NO_ROOM_TOGETHER: _always(
        "its ranks would fit now, but not in one node or zone, as `topology` asks"
    ),
    Code.PREEMPTED: _preempted,
    **BACKFILL_WORDS,
    Code.OUT_RANKED: _out_ranked,
    Code.OVER_QUOTA: _over_quota,
    Code.WAITING_FAIR_SHARE: lambda facts: (
        f"would have to borrow {facts.get('resource')} for queue {facts.get('queue')}, and queue "
        f"{facts.get('owner')} gets its own back first"
    ),
    Code.BUDGET_EXHAUSTED: _budget,
    Code.WAITING_PREEMPTION: lambda facts: (
        f"waits for {facts.get('victims')} {facts.get('rank', 'lower-priority')} run(s) to save and yield, "
        f"the first {facts.get('victim')}; their room is reserved for it"
    ),
    Code.SCALE_LOAD: lambda facts: (
        f"{_requests(facts, 'ongoing_milli')} in flight or waiting on average"
        + (
            f", of which each replica should carry {_milli(facts, 'target_milli')}"
            if "target_milli" in facts
            else ""
        )
    ),
    Code.SCALE_QUEUE: lambda facts: (
        f"{_requests(facts, 'queued_milli')} waiting on average; "
        f"more than {_milli(facts, 'target_milli')} per replica is too many"
    ),
    Code.SCALE_LATENCY: lambda facts: (
        f"the 99th percentile of the latency is {_us(facts, 'p99_us')}, its limit {_us(facts, 'limit_us')}"
    ),
    Code.SCALE_BOUNDS: _bounds,
    Code.SCALE_DEMAND: lambda facts: (
        f"{_requests(facts, 'ongoing_milli')} waiting on average and no replica"
        if int(facts.get("ongoing_milli", 0))
        else "no request waits"
    ),
    Code.SCALE_UNKNOWN: lambda facts: f"{_signal(facts)} is not known, so the number is held",
    Code.SCALE_FORECAST: _forecast,
    Code.SCALE_METRIC: lambda facts: (
        f"{facts.get('metric', 'a metric')} is {_milli(facts, 'value_milli')}, "
        f"its target {_milli(facts, 'target_milli')}"
    ),
    Code.SCALE_SCHEDULE: lambda facts: f"its schedule asks for at least {_replicas(facts, 'least')} now",
    Code.FORECAST_LEARNED: lambda facts: (
        f"the forecast keeps what it has learnt; one replica does {_requests(facts, 'capacity_milli')} "
        f"a second and starts in {facts.get('cold_start_s', '?')}s"
    ),
    Code.SCALE_COLD_START: lambda facts: (
        f"one replica stays: a start takes {_ms(facts, 'cold_start_ms')}, "
        f"and a request may wait {_ms(facts, 'timeout_ms')}"
    ),
    Code.FIRST_REVISION: _always("the first revision"),
    Code.DECLARATION_CHANGED: lambda facts: (
        f"its declaration changed since revision {facts.get('revision', '?')}"
    ),
    Code.MODEL_CHANGED: lambda facts: f"its model changed since revision {facts.get('revision', '?')}",
    Code.REPLICA_NEEDED: lambda facts: f"it should have {_replicas(facts, 'target')}",
    Code.REPLICA_SURPLUS: lambda facts: f"{_replicas(facts, 'target')} {_are(facts, 'target')} enough",
    Code.REPLICA_REPLACED: lambda facts: f"revision {facts.get('revision', '?')} takes its place",
    Code.REPLICA_STUCK: lambda facts: (
        f"{facts.get('replica', 'it')} did not get ready within {_ms(facts, 'ready_timeout_ms')}"
    ),
    Code.ROLLED_OUT: lambda facts: (
        f"revision {facts.get('revision', '?')} has taken over with {_replicas(facts, 'replicas')} ready"
    ),
    Code.REPLICA_CRASHED: lambda facts: (
        f"{facts.get('replica', 'its replica')} {_end_of(facts)} "
        + ("soon after it was ready" if "ready" in facts else "before it was ready")
        + (f", {facts['failures']} times in a row" if int(facts.get("failures", 0)) > 1 else "")
    ),
    Code.WAITING_READY: lambda facts: (
        f"{facts.get('ready', 0)} of {_replicas(facts, 'target')} ready{_of_revision(facts)}"
    ),
    Code.SERVING: lambda facts: (
        f"{_replicas(facts, 'ready')} {_are(facts, 'ready')} ready{_of_revision(facts)}"
        if int(facts.get("target", 1))
        else "no replica is kept while nobody asks; the first request starts a replica"
    ),
    Code.GATEWAY_NEEDED: _always("there is a service, and requests come through the gateway"),
    Code.SUCCEEDED: _always("succeeded"),
    Code.RETRY_NOT_TAKEN: lambda facts: (
        f"{facts.get('node', 'its node')} did not take it: {facts.get('detail', '')}; "
        f"tried again in {_ms(facts, 'delay_ms')}, uncounted"
    ),
    Code.RETRY_REPLICA: lambda facts: (
        f"{_end_of(facts)}; it is wanted, so it is tried again "
        + (f"in {_ms(facts, 'delay_ms')}" if int(facts.get("delay_ms", 0)) else "at once")
    ),
    Code.RETRY_BACKOFF: lambda facts: (
        f"{_end_of(facts)}; next try (after {facts.get('attempt')} that failed) in {_ms(facts, 'delay_ms')}"
    ),
    Code.RETRY_PREEMPTED: _resumes,
    Code.EXIT_FATAL: lambda facts: f"{_end_of(facts)}, which its policy calls fatal",
    Code.EVENT_NOT_RETRIED: lambda facts: (
        f"{_end_of(facts)}; it has no retry policy for the event {facts.get('event')!r}"
    ),
    Code.ATTEMPTS_EXHAUSTED: lambda facts: (
        f"{_end_of(facts)}; all {facts.get('attempts')} attempts are used up"
    ),
    Code.RETRY_TIME_EXHAUSTED: lambda facts: (
        f"{_end_of(facts)}; it was tried again for {_ms(facts, 'tried_ms')}, longer than its retry duration"
    ),
    Code.CRASH_LOOP: lambda facts: (
        f"crash loop: failed {facts.get('failures')} times in a row, each soon after its start; "
        f"the last {_end_of(facts)}"
    ),
    Code.RANK_FAILED: lambda facts: f"rank {facts.get('rank')} ended badly, so the whole gang is ended",
    Code.ARTIFACT_MISSING: lambda facts: (
        f"exited with 0 but did not leave its artifact {facts.get('artifact')!r} in STEERSMAN_OUTPUT_DIR"
    ),
    Code.CHECKPOINT_INTERVAL: lambda facts: (
        f"saves every {_ms(facts, 'interval_ms')}: a save takes {_ms(facts, 'save_ms')}"
    ),
    Code.STOPPED: _always("stopped by a person"),
    **SPOT_WORDS,
    Code.WAIT_BLIND: _always("waits until every sensor has reported"),
    Code.STALE: _always("no longer held when it was to be recorded"),
    Code.NOTHING_TO_DO: lambda facts: (
        f"nothing to do: {facts.get('live', 0)} run(s) under way, {facts.get('queued', 0)} queued"
    ),
}


def _log(facts: Facts) -> str:
    """Where to look: the log of the rank, or of the replica, that the reason is about."""
    rank = f" --rank {facts['rank']}" if "rank" in facts else ""
    return f"see its log (steer logs {facts.get('replica', facts[_NAME])}{rank})"


_MORE_MEMORY = "raise resources.memory, and declare it again"


def _unless_memory(otherwise: Callable[[Facts], str]) -> Callable[[Facts], str]:
    """What helps, but for who ended for want of memory: the log does not tell that, and more of it helps."""
    return lambda facts: _MORE_MEMORY if facts.get("cause") == "memory" else otherwise(facts)


def _mend(facts: Facts) -> str:
    """A revision that does not come up."""
    return f"{_log(facts)}; mend it and declare the service again"


_WAIT = (
    "wait, free some room (stop or take down something else), raise its priority, or add a node to the fleet"
)

_FIXES: Mapping[Code, Callable[[Facts], str]] = {
    Code.REFUSED_TOO_LARGE: too_large_fix,
    Code.WAITING_INPUT: lambda facts: (
        f"declare {facts.get('workload')}"
        if facts.get("phase") == "undeclared"
        else f"wait for {facts.get('workload')}; see: steer explain {facts.get('workload')}"
    ),
    Code.INPUT_FAILED: lambda facts: f"mend {facts.get('workload')}, then declare both again",
    Code.DURATION_EXCEEDED: _always("raise max_duration and declare it again"),
    Code.NO_NODES: _always("declare a fleet with a node (kind: fleet)"),
    Code.NO_CORES: _always(_WAIT),
    Code.NO_MEMORY: _always(_WAIT),
    Code.NO_DEVICES: _always(_WAIT),
    Code.NO_SHARE: _always(_WAIT),
    Code.NO_POOL: _always("declare a node of that pool, or let it run elsewhere"),
    Code.NO_INFRA: _always("declare a fleet that has it, or leave out `infra` to run anywhere"),
    Code.NO_ROOM_FOR_GANG: _always(_WAIT),
    Code.NO_ROOM_TOGETHER: _always(f"{_WAIT}, or leave out `topology`"),
    Code.ROOM_PROMISED: _always(_WAIT),
    Code.WAITING_BACKFILL: waits_behind_fix,
    Code.OVER_QUOTA: _over_quota_fix,
    Code.WAITING_FAIR_SHARE: lambda facts: (
        f"wait for queue {facts.get('owner')}, or raise nominal_quota of queue {facts.get('queue')}"
    ),
    Code.BUDGET_EXHAUSTED: _budget_fix,
    Code.EXIT_FATAL: _unless_memory(lambda facts: f"{_log(facts)}, mend it, and declare it again"),
    Code.EVENT_NOT_RETRIED: _unless_memory(
        lambda facts: f"{_log(facts)}; to try again on its own: retry.on_events: [{facts.get('event')}]"
    ),
    Code.ATTEMPTS_EXHAUSTED: _unless_memory(
        lambda facts: f"{_log(facts)}; raise retry.attempts if more tries would help"
    ),
    Code.RETRY_TIME_EXHAUSTED: _unless_memory(
        lambda facts: f"{_log(facts)}; raise retry.duration if more time would help"
    ),
    Code.RETRY_BACKOFF: _unless_memory(_log),
    Code.CRASH_LOOP: _unless_memory(lambda facts: f"{_log(facts)}: it fails before it saves anything"),
    Code.ARTIFACT_MISSING: _always("write the file there, or take it out of artifacts"),
    Code.SCALE_UNKNOWN: _always("see whether the gateway runs (steer explain gateway)"),
    Code.SCALE_COLD_START: _always("raise request_timeout, or set min_replicas: 1"),
    Code.REPLICA_CRASHED: _unless_memory(_mend),
    Code.REPLICA_STUCK: lambda facts: f"{_log(facts)}; if it only takes longer, raise the ready timeout",
    Code.RETRY_REPLICA: _unless_memory(_log),
    **SPOT_FIXES,
}
