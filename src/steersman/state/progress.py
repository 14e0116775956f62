"""How much work the checkpoints of a job hold, and what its starts take, both counted by time.

Theory of operation. Between two checkpoints of one run nothing but work happens, and saving: that time is
credited, and it tells how long a step takes. The time before the first checkpoint of a run also holds the
start, so it is credited by its steps, at the pace seen so far; what is left of it is what the start took.
While no pace is known nothing is credited: to count too little makes nobody late.
"""

from msgspec.structs import replace

from steersman.model.events import CheckpointSaved
from steersman.model.snapshot import Run, WorkloadState


def credited(state: WorkloadState, run: Run, saved_ms: int, event: CheckpointSaved) -> WorkloadState:
    """The workload after a checkpoint of its run. `saved_ms`: when that is taken to have been saved."""
    steps = max(event.step - (run.saved_step or 0), 0)
    if run.saved_ms is not None:
        took_ms = max(saved_ms - run.saved_ms - event.save_ms, 0)
        return replace(
            state,
            saved_work_ms=state.saved_work_ms + took_ms,
            timed_steps=state.timed_steps + steps,
            timed_ms=state.timed_ms + took_ms,
        )
    if not state.timed_steps:
        return state
    took_ms = max(saved_ms - run.decided_ms - event.save_ms, 0)
    worked_ms = min(steps * state.timed_ms // state.timed_steps, took_ms)
    return replace(
        state,
        saved_work_ms=state.saved_work_ms + worked_ms,
        launch_ms=max(state.launch_ms, took_ms - worked_ms),
    )


def kept(before: WorkloadState, after: WorkloadState) -> WorkloadState:
    """A workload declared anew that goes on from what it saved."""
    return replace(
        after,
        lineage=before.lineage,
        saved_step=before.saved_step,
        save_ms=before.save_ms,
        saved_work_ms=before.saved_work_ms,
        timed_steps=before.timed_steps,
        timed_ms=before.timed_ms,
        launch_ms=before.launch_ms,
        attained_ms=before.attained_ms,
        counted_ms=before.counted_ms,
    )
