"""Arrivals of a service, second by second, from recorded requests or recorded rates.

Theory of operation. A file is known by its columns (FORMATS). A file of requests gives each its work: of
language models in mean requests, a request weighing a tenth of its input tokens and its output tokens; of
images in seconds of execution. A file of rates gives a rate for each interval up to the next row, from which
arrivals are drawn (`poisson`), one unit of work each. Rows outside of the times asked for are counted.
"""

import math
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from steersman.model.errors import TraceError
from steersman.sim.replay.poisson import drawn
from steersman.sim.replay.tables import Read, amount, check_order, head_of, read_table, word

SECONDS_MAX = 400 * 86_400
"""The longest series: more than a year, second by second."""
RATE_MAX = 1e7
"""The highest rate, a second: what a fluid queue of units still counts exactly."""
EXECUTION_S = (1.0, 120.0)
"""Work of an image is its execution time between these: shorter is a cache, longer a machine that hung."""
PROMPT_WEIGHT = 0.1
"""A token of the prompt costs a tenth of a token that is generated."""
GENERATIVE = "Generative Requests"
OUTSIDE = "rows outside --from and --to"
OTHER_TYPE = f"rows of another type than {GENERATIVE}"
NO_WORK = "requests without a token"


class Format(NamedTuple):
    """The columns of a kind of file, time first, and what is made of the others.

    `value` gives the work of a request, or the rate of an interval, or the words of why a row is dropped.
    """

    columns: Mapping[str, Read]
    value: Callable[[tuple[Any, ...]], float | str]
    is_rate: bool = False
    per_interval: bool = False  # the value is a count by interval
    relative: bool = True  # time begins with the first row that is used, else with 0 or --from
    mean: bool = False  # work is in means


class Arrivals(NamedTuple):
    """What came in each second, and the rows that were not used, by reason."""

    work: Sequence[float]
    requests: Sequence[float]
    dropped: Mapping[str, int]


class _Rows(NamedTuple):
    at_s: "array[float]"  # not subscriptable at run time before Python 3.12
    values: "array[float]"
    dropped: Counter[str]


def stamp(text: str) -> float:
    """Seconds since 1970 of a date and time, in UTC if it does not say. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _tokens(values: tuple[Any, ...]) -> float | str:
    weight = float(values[0] * PROMPT_WEIGHT + values[1])
    return weight if weight > 0 else NO_WORK


def _execution(values: tuple[Any, ...]) -> float | str:
    return float(min(max(values[0], EXECUTION_S[0]), EXECUTION_S[1]))


def _of_type(values: tuple[Any, ...]) -> float | str:
    return float(values[1]) if values[0] == GENERATIVE else OTHER_TYPE


def _plain(values: tuple[Any, ...]) -> float | str:
    return float(values[0])


FORMATS: Sequence[Format] = (
    Format(
        {"t_s": amount, "ContextTokens": amount, "GeneratedTokens": amount},
        _tokens,
        relative=False,
        mean=True,
    ),
    Format(
        {"t_s": amount, "input_tokens": amount, "output_tokens": amount}, _tokens, relative=False, mean=True
    ),
    Format({"t_s": amount, "exec_time_seconds": amount}, _execution),
    Format({"t_s": amount, "request_type": word, "qps": amount}, _of_type, is_rate=True),
    Format({"t_s": amount, "rate_rps": amount}, _plain, is_rate=True),
    Format({"utc": stamp, "requests": amount}, _plain, is_rate=True, per_interval=True),
    Format({"timestamp": stamp, "value": amount}, _plain, is_rate=True, per_interval=True),
)


def read_arrivals(path: Path, from_: str | None, to: str | None, seed: int) -> Arrivals:
    """The arrivals of a file. Raises TraceError."""
    kind = _format(path)
    first = next(iter(kind.columns.values()))
    begin, end = _time(first, "--from", from_, -math.inf), _time(first, "--to", to, math.inf)
    if begin >= end:
        raise TraceError("--from is not before --to", hint="give a span of the trace")
    rows = _read(path, kind, begin, end)
    if not rows.at_s:
        raise TraceError(
            f"{path.name}: no row is left to replay", hint="look at --from and --to, and at the file"
        )
    if kind.is_rate:
        return _from_rates(path, kind, rows, seed)
    zero = rows.at_s[0] if kind.relative else max(0.0, begin)
    return _from_requests(path, kind, rows, zero)


def _format(path: Path) -> Format:
    head = head_of(path)
    for kind in FORMATS:
        if all(name in head for name in kind.columns):
            return kind
    known = "; ".join(", ".join(kind.columns) for kind in FORMATS)
    raise TraceError(
        f"{path.name}:1: these columns tell no arrivals: {', '.join(head)[:200]}", hint=f"known are {known}"
    )


def _time(read: Read, flag: str, text: str | None, otherwise: float) -> float:
    if text is None:
        return otherwise
    try:
        return float(read(text))
    except ValueError as error:
        kind = "a date and time" if read is stamp else "seconds"
        raise TraceError(f"{flag} is {text[:60]!r}: {error}", hint=f"this trace's time is {kind}") from error


def _read(path: Path, kind: Format, begin: float, end: float) -> _Rows:
    rows = _Rows(array("d"), array("d"), Counter())
    what, before = next(iter(kind.columns)), -math.inf
    for line, (at, *others) in read_table(path, kind.columns):
        value = kind.value(tuple(others))
        if isinstance(value, str):
            rows.dropped[value] += 1
            continue
        check_order(path, line, before, at, what)
        if kind.is_rate and at == before:
            raise TraceError(
                f"{path.name}:{line}: {what} {at:g} is there twice", hint="one row for each time"
            )
        before = at
        if begin <= at < end:
            rows.at_s.append(at)
            rows.values.append(value)
        else:
            rows.dropped[OUTSIDE] += 1
    return rows


def _seconds(path: Path, span_s: float) -> int:
    if span_s > SECONDS_MAX:
        raise TraceError(
            f"{path.name}: {span_s:,.0f} s are more than {SECONDS_MAX:,}",
            hint="replay a part with --from and --to",
        )
    return int(span_s)


def _from_requests(path: Path, kind: Format, rows: _Rows, zero: float) -> Arrivals:
    size = _seconds(path, rows.at_s[-1] - zero) + 1
    work, requests = array("d", bytes(8 * size)), array("d", bytes(8 * size))
    unit = math.fsum(rows.values) / len(rows.values) if kind.mean else 1.0
    for at, value in zip(rows.at_s, rows.values, strict=True):
        second = int(at - zero)
        work[second] += value / unit
        requests[second] += 1
    return Arrivals(work, requests, rows.dropped)


def _from_rates(path: Path, kind: Format, rows: _Rows, seed: int) -> Arrivals:
    if len(rows.at_s) < 2:
        raise TraceError(
            f"{path.name}: one row is no series of rates", hint="two rows tell how far apart they are"
        )
    zero = rows.at_s[0]
    spacing = statistics.median(
        after - before for before, after in zip(rows.at_s, rows.at_s[1:], strict=False)
    )
    rates = [value / spacing for value in rows.values] if kind.per_interval else list(rows.values)
    if max(rates) > RATE_MAX:
        raise TraceError(f"{path.name}: a rate of {max(rates):g} a second", hint=f"at most {RATE_MAX:g}")
    size = _seconds(path, rows.at_s[-1] - zero + spacing)
    counts = drawn([at - zero + spacing / 2 for at in rows.at_s], rates, size, seed)
    if not any(counts):
        raise TraceError(f"{path.name}: nothing arrives", hint="look at --from and --to, and at the file")
    return Arrivals(counts, counts, rows.dropped)
