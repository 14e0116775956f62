"""What a training script imports to be stopped, moved and resumed without losing work.

    import steersman_trainer as steer

    with steer.start() as run:
        state = run.resume(load) or fresh()              # load(folder) -> state
        for step in range(run.step, total):
            train_one_step(state)
            run.report(step=step + 1, loss=loss, samples_per_s=speed, total_steps=total)
            run.checkpoint(step + 1, save)               # save(folder) -> None; only when one is due
        run.complete()

It needs Python 3.9 or later on a POSIX system and nothing else: it is put on the job's path and runs in the
user's own environment. Without Steersman the same script keeps its checkpoints in ``./checkpoints``.

Never in here: an import of steersman or of anything outside the standard library, a training framework, a
pickle, a thread, a decision that belongs to the control plane.
"""

from steersman_trainer.errors import CheckpointError, TrainerError, Yielded
from steersman_trainer.run import Run, start
from steersman_trainer.store import Skipped

__all__ = ["CheckpointError", "Run", "Skipped", "TrainerError", "Yielded", "start"]
