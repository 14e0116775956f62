"""The moves a workload and a run may make, in two tables.

Rule 1: a move that is not in a table never happens; `fold` asserts it.
Rule 2: what causes a move is the name of the event or decision beside it; nothing else causes it.
Rule 3: a final phase is left only by a new declaration.

The diagrams in docs/architecture.md are generated from these tables.
"""

from collections.abc import Mapping

from steersman.model.snapshot import Phase, RunState

PHASE_MOVES: Mapping[tuple[Phase, str], frozenset[Phase]] = {
    (Phase.DECLARED, "admit"): frozenset({Phase.QUEUED}),
    (Phase.DECLARED, "finish"): frozenset({Phase.FAILED, Phase.STOPPED}),
    (Phase.QUEUED, "start"): frozenset({Phase.ACTIVE}),
    (Phase.QUEUED, "finish"): frozenset({Phase.STOPPED}),
    (Phase.ACTIVE, "requeue"): frozenset({Phase.QUEUED, Phase.BACKOFF, Phase.DECLARED}),
    (Phase.ACTIVE, "finish"): frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED}),
    (Phase.BACKOFF, "observed"): frozenset({Phase.QUEUED}),
    (Phase.BACKOFF, "finish"): frozenset({Phase.STOPPED}),
    (Phase.DECLARED, "workload-declared"): frozenset({Phase.DECLARED}),
    (Phase.QUEUED, "workload-declared"): frozenset({Phase.DECLARED}),
    (Phase.BACKOFF, "workload-declared"): frozenset({Phase.DECLARED}),
    (Phase.SUCCEEDED, "workload-declared"): frozenset({Phase.DECLARED}),
    (Phase.FAILED, "workload-declared"): frozenset({Phase.DECLARED}),
    (Phase.STOPPED, "workload-declared"): frozenset({Phase.DECLARED}),
}

RUN_MOVES: Mapping[tuple[RunState, str], frozenset[RunState]] = {
    (RunState.STARTING, "rank-started"): frozenset({RunState.STARTING, RunState.RUNNING}),
    (RunState.STARTING, "rank-exited"): frozenset({RunState.STARTING, RunState.ENDED}),
    (RunState.STARTING, "stop"): frozenset({RunState.STOPPING}),
    (RunState.RUNNING, "rank-exited"): frozenset({RunState.RUNNING, RunState.ENDED}),
    (RunState.RUNNING, "stop"): frozenset({RunState.STOPPING}),
    (RunState.STOPPING, "rank-started"): frozenset({RunState.STOPPING}),
    (RunState.STOPPING, "rank-exited"): frozenset({RunState.STOPPING, RunState.ENDED}),
}


def move_phase(before: Phase, cause: str, after: Phase) -> Phase:
    """`after`, when the table allows the move."""
    assert after in PHASE_MOVES.get((before, cause), frozenset()), (before, cause, after)
    return after


def move_run(before: RunState, cause: str, after: RunState) -> RunState:
    """`after`, when the table allows the move."""
    assert after in RUN_MOVES.get((before, cause), frozenset()), (before, cause, after)
    return after
