"""What a job needs by itself, whoever decides: how far it must come, how it saves, how it fails.

Theory of operation. Progress is the time that a program works, without the time in which it saves. It saves
each time it has worked for its interval, and stands still meanwhile. From a recorded try (begun, ended, told
these intervals) follows how far it came; from how far a job must come follows when another try, begun
elsewhere and told otherwise, will be done. A try begins where the last save of its lineage was.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from steersman.model.snapshot import RankEnd
from steersman.ports.driver import ArtifactReport

Fate = Literal["succeeded", "failed", "stopped", "running", "waiting"]
"""What became of a job in the record: ``running`` and ``waiting`` are cut off by its end."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A failure of the program's own, when it had come so far; `ends` has one item a rank."""

    progress_ms: int
    ends: tuple[RankEnd, ...]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One job, that is one declaration that began a new run. All times in milliseconds.

    `needs_ms`: the progress at which it succeeds; None: it never does by itself. `faults` come in their order
    before that, and the last of a job that failed comes again for as long as it is tried. `start_ms`: from
    the decision to the program. `save_ms` None: it does not save. `stop_ms`: how long it takes to end when it
    is told to, as `stop_end`; `saves_on_stop`: not without saving. `ready_ms`: when a replica answers, after
    its start; None: never.
    """

    fate: Fate
    needs_ms: int | None = None
    faults: tuple[Fault, ...] = ()
    start_ms: int = 0
    save_ms: int | None = None
    stop_ms: int = 0
    stop_end: RankEnd = RankEnd(signal=15)
    saves_on_stop: bool = False
    ready_ms: int | None = None
    completed: bool = False
    artifacts: tuple[ArtifactReport, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it came to an end of its own in the record, so that another end can be held against it."""
        return self.fate in ("succeeded", "failed")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a try is `at_ms` after its program began. `done_ms` counts from where it began to work.

    `saved_ms` of it is saved, since `saved_at_ms` (None: nothing is); `since_ms` was done after that.
    """

    at_ms: int = 0
    done_ms: int = 0
    saved_ms: int = 0
    saved_at_ms: int | None = None
    since_ms: int = 0


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """Every `interval_ms` of work (at least 1) it saves for `save_ms` (at least 0)."""

    interval_ms: int
    save_ms: int


def advance(progress: Progress, at_ms: int, saving: Saving | None) -> Progress:
    """How far it is at a later time. A save that is under way at a change of interval begins again."""
    passed = max(at_ms - progress.at_ms, 0)
    if saving is None:
        return msgspec.structs.replace(
            progress,
            at_ms=progress.at_ms + passed,
            done_ms=progress.done_ms + passed,
            since_ms=progress.since_ms + passed,
        )
    first = max(saving.interval_ms - progress.since_ms, 0)
    round_ms = saving.interval_ms + saving.save_ms
    if passed < first + saving.save_ms:
        worked = min(passed, first)
        return msgspec.structs.replace(
            progress,
            at_ms=progress.at_ms + passed,
            done_ms=progress.done_ms + worked,
            since_ms=progress.since_ms + worked,
        )
    more, rest = divmod(passed - first - saving.save_ms, round_ms)
    worked = min(rest, saving.interval_ms)
    saved = progress.done_ms + first + more * saving.interval_ms
    return Progress(
        at_ms=progress.at_ms + passed,
        done_ms=saved + worked,
        saved_ms=saved,
        saved_at_ms=progress.at_ms + passed - rest,
        since_ms=worked,
    )


def reaches_at_ms(progress: Progress, done_ms: int, saving: Saving | None) -> int:
    """When it has come that far, after its program began; saves on the way are made before."""
    left = done_ms - progress.done_ms
    if left <= 0 or saving is None:
        return progress.at_ms + max(left, 0)
    first = max(saving.interval_ms - progress.since_ms, 0)
    if left <= first:
        return progress.at_ms + left
    saves = 1 + (left - first - 1) // saving.interval_ms
    return progress.at_ms + left + saves * saving.save_ms


def first_save_at_ms(progress: Progress, saving: Saving) -> int:
    """When the next save is done, after its program began."""
    return progress.at_ms + max(saving.interval_ms - progress.since_ms, 0) + saving.save_ms


def along(until_ms: int, intervals: Sequence[tuple[int, int | None]], save_ms: int | None) -> Progress:
    """How far a try came that was told these intervals: (time after its begin, interval), in order."""
    progress, saving = Progress(), None
    for at_ms, interval_ms in intervals:
        if at_ms >= until_ms:
            break
        progress = advance(progress, at_ms, saving)
        saving = saving_of(interval_ms, save_ms)
    return advance(progress, until_ms, saving)


def saving_of(interval_ms: int | None, save_ms: int | None) -> Saving | None:
    """How a program saves that is told this interval; None when it does not."""
    if interval_ms is None or save_ms is None:
        return None
    return Saving(interval_ms=max(interval_ms, 1), save_ms=save_ms)
