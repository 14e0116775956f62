"""One try of a training job, seen from inside: what to resume from, when to save, when to stop.

A call of `checkpoint` saves when a stop is asked for, when it is forced, or when the interval has passed
since the last save began (monotonic time, so that a clock set anew neither skips nor doubles one). When a
stop is asked for, before the save or while it ran, it then raises `Yielded`: the state on disk is the state
in memory and no step is done twice.

A periodic save that the disk refuses is warned of and tried again after another interval, for hours of
training are worth more than one checkpoint; a forced one and one on notice raise, for nothing comes after
them. Errors of the script's own `write` always pass through.

Only rank 0 writes. The other ranks resume from what rank 0 saved and yield on the same notice. Nothing here
waits, blocks or runs in a thread.
"""

from __future__ import annotations

import operator
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex, TypeVar

from steersman_trainer.doorbell import ring
from steersman_trainer.errors import CheckpointError, TrainerError, Yielded
from steersman_trainer.manifest import STEP_MAX
from steersman_trainer.orders import Orders
from steersman_trainer.progress import Progress
from steersman_trainer.settings import Settings, read_settings
from steersman_trainer.store import CheckpointStore, Skipped

State = TypeVar("State")


def start() -> Run:
    """Begin: read the environment, take SIGTERM as a notice, remove what a killed writer left.

    Outside Steersman checkpoints go to ``./checkpoints`` (or STEERSMAN_CHECKPOINT_DIR), SIGTERM keeps its
    meaning and no notice comes. Use the result in a ``with`` statement, or call its `close`. Raises
    TrainerError when a STEERSMAN_* variable is wrong and CheckpointError when the folder cannot be read.
    """
    return Run(read_settings(os.environ))


class Run:
    """Made by `start`. Not safe to use from several threads at once."""

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._orders = Orders(settings.run_dir, interval_ms=settings.interval_ms, monotonic=monotonic)
        self._progress = Progress(settings.run_dir, monotonic=monotonic, warn=_say)
        self._store = CheckpointStore(settings.checkpoint_dir, run_id=settings.run_id, keep=settings.keep)
        self._step = 0
        self._skipped: tuple[Skipped, ...] = ()
        self._failures = 0
        self._yielded = False
        if settings.rank == 0:
            self._store.remove_leftovers()
        self._saved_at = monotonic()
        self._orders.listen()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def step(self) -> int:
        """The steps done in the checkpoint that was resumed from: where the loop begins. 0 when anew."""
        return self._step

    @property
    def rank(self) -> int:
        """This rank, from 0."""
        return self._settings.rank

    @property
    def num_nodes(self) -> int:
        """How many ranks run together."""
        return self._settings.num_nodes

    @property
    def checkpoint_dir(self) -> Path:
        """The folder that holds the checkpoints, an absolute path; the first save makes it."""
        return self._settings.checkpoint_dir

    @property
    def checkpoint_interval_s(self) -> float:
        """Seconds from the beginning of one save to that of the next; the control plane may change it."""
        self._orders.look()
        return self._orders.interval_ms / 1000

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Checkpoints that `resume` passed over because they are damaged, newest first."""
        return self._skipped

    @property
    def notice(self) -> str | None:
        """Why this run is asked to stop (``preempted``, ``stop-requested``, …), or None when it is not."""
        return self._orders.notice

    def should_stop(self) -> bool:
        """Whether this rank is asked to stop; the next `checkpoint` will save and raise `Yielded`."""
        return self.notice is not None

    def resume(self, load: Callable[[Path], State]) -> State | None:
        """The state of the newest valid checkpoint, or None when there is none.

        `load(folder)` reads what `write` saved; it is called only after manifest, sizes and digests were
        found to be right. Damaged checkpoints are passed over, told on stderr and listed in `skipped`. What
        `load` raises passes through: a checkpoint that is whole and cannot be read is the script's affair.
        Sets `step`. Raises CheckpointError when the checkpoint folder cannot be read.
        """
        found, skipped = self._store.newest_valid()
        self._skipped = tuple(skipped)
        for entry in skipped:
            _say(f"skipped the damaged checkpoint {entry.path}: {entry.reason}")
        if found is None:
            if skipped:
                _say("no checkpoint is left that can be trusted: beginning anew")
            return None
        step, path = found
        state = load(path)
        self._step = self._progress.step = step
        self._saved_at = self._monotonic()
        return state

    def report(self, *, step: SupportsIndex, **metrics: object) -> None:
        """Tell where the work is: steps done, and numbers: ``loss``, ``samples_per_s``, ``total_steps``, …

        Cheap enough for every step: a file is written at most once a second, and once at the end. A metric
        that is left out keeps its last value; one that is not finite loses it. Raises TrainerError for a
        value that is not a number and for more than 64 metrics.
        """
        self._progress.update(_checked_step(step), metrics)
        if self._progress.write_if_due():
            ring(self._settings.doorbell)

    def checkpoint(
        self,
        step: SupportsIndex,
        write: Callable[[Path], object],
        *,
        force: bool = False,
        stop: bool | None = None,
    ) -> bool:
        """Save the state after `step` steps if it is time to; True when this call published a checkpoint.

        `write(folder)` saves into an empty folder, in the framework's own safe format (safetensors, .npz
        without pickle, …); the folder is published whole or not at all. Time to: `force`, the interval, or a
        stop. On a stop it raises `Yielded` (exit code 75) once the state is saved. A step that is already
        saved is not saved again. On ranks other than 0 nothing is written.

        Ranks that talk to one another at every step must stop at the same one: let them agree on
        `should_stop()` (an all-reduce) and pass the verdict as `stop`.

        Raises CheckpointError when the disk refuses and the save was forced or for a stop (otherwise it
        warns on stderr, counts it in the metric ``checkpoint_failures`` and tries again after an interval),
        TrainerError for a step out of range or a `write` that left no plain files.
        """
        done = _checked_step(step)
        published = False
        stopping = self._stops(stop)
        if stopping or force or self._interval_passed():
            published = self._save(done, write, must=stopping or force)
            # The notice may have come while the state was being written: it is on disk, so go at once.
            stopping = stopping or (published and self._stops(stop))
        if stopping:
            self._yield(done)
        return published

    def complete(self) -> None:
        """The work is done: an exit with 0 is a success even if a stop is asked for from now on."""
        self._progress.complete()
        self._progress.write()
        ring(self._settings.doorbell)

    def close(self) -> None:
        """Write the last progress and give SIGTERM back. Called by the ``with`` statement.

        A run that yielded or is complete ignores SIGTERM instead: it has only to exit.
        """
        if self._progress.write():
            ring(self._settings.doorbell)
        # A run that yielded or is done has only to exit: a SIGTERM that comes late must not turn the exit
        # code into death by a signal.
        if self._yielded or self._progress.completed:
            self._orders.ignore()
        else:
            self._orders.unlisten()

    def _stops(self, stop: bool | None) -> bool:
        return self.should_stop() if stop is None else stop

    def _interval_passed(self) -> bool:
        return (self._monotonic() - self._saved_at) * 1000 >= self._orders.interval_ms

    def _save(self, step: int, write: Callable[[Path], object], *, must: bool) -> bool:
        if self._settings.rank != 0:
            return False
        self._saved_at = self._monotonic()
        try:
            published = self._store.publish(step, write)
        except CheckpointError as error:
            if must:
                raise
            self._failures += 1
            self._progress.update(step, {"checkpoint_failures": self._failures})
            _say(f"training goes on without a new checkpoint: {error}")
            return False
        if published:
            ring(self._settings.doorbell)
        return published

    def _yield(self, step: int) -> None:
        cause = self.notice or "agreed"
        self._yielded = True
        _say(f"yielding after step {step} ({cause})")
        raise Yielded(step, cause)


def _checked_step(step: SupportsIndex) -> int:
    value = operator.index(step)
    if not 0 <= value <= STEP_MAX:
        raise TrainerError(
            f"the step {value} is not from 0 to {STEP_MAX}", hint="count the steps that are done, from 0"
        )
    return value


def _say(message: str) -> None:
    sys.stderr.write(f"steersman: {message}\n")
