"""How a run ended, in one word: what its ranks' ends amount to."""

from typing import Literal

from steersman.model.policy import Policy
from steersman.model.snapshot import RankEnd, Run

EndKind = Literal["succeeded", "stopped", "yielded", "interruption", "error"]

EXIT_YIELDED = 75
"""EX_TEMPFAIL: the program saved its progress and asks to be resumed (see ports.run_dir)."""


SHELL_SIGNAL = 128
"""A shell whose program was ended by signal N exits with 128 + N."""
FAULT_SIGNALS = frozenset({4, 5, 6, 7, 8, 11, 31})
"""SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: a program brings these on itself."""
INTERRUPTING = frozenset({9, 15})
"""SIGKILL and SIGTERM: how machines and people end other people's programs, also through a shell."""


def rank_end_kind(end: RankEnd, *, stopping: bool, doomed: bool = False) -> EndKind:
    """What one rank's end means, given whether Steersman had told the run to end.

    `doomed`: it was told to end because a rank had failed, which may be this one: then only a delivered stop
    tells that it was not.

    Exit 0 counts as success unless the stop signal had been delivered and the program did not say that its
    work was complete: a program that merely obeys SIGTERM must not pass for one that finished. A lost
    process, or a signal that nobody here sent, is an interruption of the machine's, not an error of the
    program, unless it is one of those a program brings on itself. So is a place that did not take it.
    """
    if end.completed and end.exit_code == 0:
        return "succeeded"
    if stopping and (end.stop_delivered or (end.cause == "lost" and not doomed)):
        return "stopped"
    if end.cause == "exited" and end.exit_code == 0:
        return "succeeded"
    if end.cause == "exited" and end.exit_code == EXIT_YIELDED:
        return "yielded"
    if end.cause in ("lost", "not-taken") or (end.cause == "exited" and _interrupted(end)):
        return "interruption"
    return "error"


def _interrupted(end: RankEnd) -> bool:
    if end.signal is not None:
        return end.signal not in FAULT_SIGNALS
    return end.exit_code is not None and end.exit_code - SHELL_SIGNAL in INTERRUPTING


def rank_failed(end: RankEnd) -> bool:
    """Whether this end, while other ranks still run, dooms the run."""
    return rank_end_kind(end, stopping=False) != "succeeded"


_WORST_FIRST: tuple[EndKind, ...] = ("interruption", "error", "yielded", "stopped", "succeeded")


def run_end_kind(run: Run) -> EndKind:
    """What an ended run's end means: its worst rank decides.

    An interruption outranks an error, for when one rank of a gang is lost, the others fail on it. A gang
    that was stopped because one rank failed is judged by the ranks that were not told to stop.
    """
    kinds = {_kind_in(run, rank.end) for rank in run.ranks if rank.end is not None}
    return next((kind for kind in _WORST_FIRST if kind in kinds), "interruption")


def worst_end(run: Run) -> RankEnd:
    """The end of the rank that decided `run_end_kind`; the lowest rank among equals."""
    kind = run_end_kind(run)
    ends = [rank.end for rank in run.ranks if rank.end is not None]
    assert ends, run.id
    return next(end for end in ends if _kind_in(run, end) == kind)


def _kind_in(run: Run, end: RankEnd) -> EndKind:
    return rank_end_kind(end, stopping=run.stop is not None, doomed=run.stop == "rank-failed")


def run_was_short(run: Run, policy: Policy) -> bool:
    """Whether an ended run ended so soon after its start that it looks like a crash at start."""
    if run.started_ms is None or run.ended_ms is None:
        return True
    return run.ended_ms - run.started_ms < policy.crash_loop_run_ms


def began_anew(run: Run, policy: Policy) -> bool:
    """Whether an ended run says nothing of those before it: it had saved something, or it had run for a while
    until its machine took it along. A run of failures begins with it, and back-off with that."""
    lost = not run_was_short(run, policy) and worst_end(run).cause == "lost"
    return run.saved_ms is not None or lost
