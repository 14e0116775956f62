"""``progress.json``: where the work is and the last value of every metric.

It is written at most once a second, whole, and once more at the end, so that reporting every step costs
microseconds. A value that is not finite takes its metric away: JSON has no word for it, and an old value
would be a lie. A disk that refuses is warned of once and never ends the training.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from steersman_trainer.errors import TrainerError
from steersman_trainer.files import replace_durably
from steersman_trainer.names import PROGRESS

WRITE_SECONDS = 1.0
METRICS_MAX = 64
METRIC_NAME_CHARACTERS_MAX = 64


class Progress:
    """Progress of one rank; without a run folder it is kept in memory only."""

    def __init__(
        self, run_dir: Path | None, *, monotonic: Callable[[], float], warn: Callable[[str], None]
    ) -> None:
        self.step = 0
        self.completed = False
        self.metrics: dict[str, float] = {}
        self._path = None if run_dir is None else run_dir / PROGRESS
        self._monotonic = monotonic
        self._warn = warn
        self._warned = False
        self._written_at: float | None = None
        self._dirty = False

    def update(self, step: int, metrics: Mapping[str, object]) -> None:
        """Take note of a step and of some metrics; the others keep their values. Raises TrainerError."""
        self.step = step
        self._dirty = True
        for name, value in metrics.items():
            self._set(name, value)

    def complete(self) -> None:
        """The work is done."""
        self.completed = self._dirty = True

    def write_if_due(self) -> bool:
        """Write what is new, unless the last time was within the second. True when something was written."""
        if self._written_at is not None and self._monotonic() - self._written_at < WRITE_SECONDS:
            return False
        return self.write()

    def write(self) -> bool:
        """Write what is new, now. True when something was written."""
        if self._path is None or not self._dirty:
            return False
        self._written_at = self._monotonic()
        body = {
            "step": self.step,
            "at_ms": time.time_ns() // 1_000_000,
            "metrics": self.metrics,
            "completed": self.completed,
        }
        try:
            replace_durably(self._path, json.dumps(body, sort_keys=True).encode())
        except OSError as error:
            if not self._warned:
                self._warn(f"progress cannot be written to {self._path}: {error}")
            self._warned = True
            return False
        self._dirty = False
        return True

    def _set(self, name: str, value: object) -> None:
        try:
            number = float(value)  # type: ignore[arg-type]  # anything with __float__: numpy and tensor scalars too
        except (TypeError, ValueError, OverflowError):
            raise TrainerError(
                f"the metric {name!r} is {type(value).__name__}, which is not a number",
                hint="report numbers; of a tensor report its item()",
            ) from None
        if not math.isfinite(number):
            self.metrics.pop(name, None)
            return
        if name not in self.metrics and (
            len(self.metrics) >= METRICS_MAX or len(name) > METRIC_NAME_CHARACTERS_MAX
        ):
            raise TrainerError(
                f"the metric {name[:METRIC_NAME_CHARACTERS_MAX]!r} is one too many or has too long a name",
                hint=f"report at most {METRICS_MAX}, named with at most {METRIC_NAME_CHARACTERS_MAX} letters",
            )
        self.metrics[name] = number
