"""Everything the SDK raises.

    Exception
    └── TrainerError          the script or its environment is wrong: what, why, hint
        └── CheckpointError   a checkpoint could not be saved or read; the cause is chained
    SystemExit
    └── Yielded               the state is saved and the script should end; exits with code 75

`Yielded` is not a TrainerError on purpose: ``except Exception`` in a training loop must not swallow it.
"""

from __future__ import annotations

from steersman_trainer.names import EXIT_YIELDED


class TrainerError(Exception):
    """What happened and why in `message`; what to do in `hint`."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class CheckpointError(TrainerError):
    """A checkpoint could not be saved or read. Checkpoints published earlier are as they were."""


class Yielded(SystemExit):
    """Raised after the state was saved because a stop was asked for. Let it pass: the exit code is 75.

    `step` is the step that a later run resumes from; `cause` is why the stop was asked for.
    """

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(EXIT_YIELDED)
        self.step = step
        self.cause = cause
