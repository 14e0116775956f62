"""Figures about the loop itself, for `/metrics`, `status` and `doctor`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from steersman.model.decisions import Decision

PROBLEM_CHARACTERS_MAX = 500


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since this control plane started. Times are CPU milliseconds of a whole cycle.

    `problem` says what failed last, until a cycle has gone well again.
    """

    cycles: int
    cycle_ms_last: float
    cycle_ms_max: float
    cycle_ms_sum: float
    inbox_length: int
    journal_position: int
    decisions: Mapping[str, int]
    failures: int
    healthy: bool
    problem: str


class Tally:
    """Counts as the engine runs."""

    def __init__(self) -> None:
        self._cycles = 0
        self._last_ms = self._max_ms = self._sum_ms = 0.0
        self._decisions: Counter[str] = Counter()
        self._failures = 0
        self._problem = ""

    def cycle(self, cpu_s: float, decisions: Sequence[Decision]) -> None:
        """A cycle went well; these decisions were recorded."""
        self._cycles += 1
        self._last_ms = cpu_s * 1000
        self._max_ms = max(self._max_ms, self._last_ms)
        self._sum_ms += self._last_ms
        self._decisions.update(decision.reason.code.value for decision in decisions)
        self._problem = ""

    def failed(self, name: str, error: BaseException) -> None:
        """Something failed and will be tried again."""
        self._failures += 1
        self._problem = f"{name}: {type(error).__name__}: {error}"[:PROBLEM_CHARACTERS_MAX]

    def stats(self, inbox_length: int, position: int) -> EngineStats:
        """The figures now."""
        return EngineStats(
            cycles=self._cycles,
            cycle_ms_last=self._last_ms,
            cycle_ms_max=self._max_ms,
            cycle_ms_sum=self._sum_ms,
            inbox_length=inbox_length,
            journal_position=position,
            decisions=MappingProxyType(dict(sorted(self._decisions.items()))),
            failures=self._failures,
            healthy=not self._problem,
            problem=self._problem,
        )
