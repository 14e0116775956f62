"""Amounts as people write them, to integers and back: cores, memory, durations.

Theory: every amount is read with integer arithmetic from its text, so that nothing passes through a float;
a fraction that does not come out even is rounded up, because an amount asked for is a least amount. The
words are those of SkyPilot and dstack, and so are their meanings:

* cores: ``2``, ``0.5``, ``500m`` (millicores), ``4+`` and ``4..`` (at least), ``4..8``;
* memory: ``16GB``, ``512MB``, ``16`` (GB), ``16+``, ``24GB..40GB``. As in SkyPilot, dstack, Docker and
  Slurm the units are powers of 1024: ``GB`` and ``GiB`` are the same 1,073,741,824 bytes;
* durations: ``90s``, ``10m``, ``2h``, ``1d``, ``1w``, ``1h30m``, ``250ms``, ``90`` (seconds).

What is refused raises SpecError without a place; the caller that knows the place adds it. Formatters give
text that the parsers read back: exactly, unless it begins with ``≈``.
"""

import re
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from steersman.model.errors import SpecError

CPU_MILLI_MAX = 100_000_000
"""The most millicores one rank or node may have: 100,000 cores."""
MEMORY_BYTES_MAX = 2**50
"""The most bytes of memory one rank or node may have: 1 PiB."""
DURATION_MS_MAX = 3_650 * 86_400_000
"""The longest duration, in milliseconds: ten years."""
AMOUNT_CHARS_MAX = 64
"""The longest text of an amount, in characters."""

CPU_EXAMPLES = "2, 0.5, 500m, 4+"
MEMORY_EXAMPLES = "512MB, 16GB, 16+, 24GB..40GB"
DURATION_EXAMPLES = "90s, 10m, 2h, 1h30m, 1d"

_Units: TypeAlias = Mapping[str, int]

_CPU_UNITS: _Units = {"": 1_000, "m": 1}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_MEMORY_UNITS: _Units = {
    "": 2**30,
    "b": 1,
    **{unit + suffix: factor for unit, factor in _BINARY.items() for suffix in ("", "b", "ib")},
}
_DURATION_UNITS: _Units = {
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_MEMORY_UNIT = r"(?:[kKmMgGtTpP](?:[iI]?[bB])?|[bB])?"
CPU_PATTERN = rf"^ *{_NUMBER}m?(?: *\+| *\.\.(?: *{_NUMBER}m?)?)? *$"
"""What texts of cores look like, for editors; the parser knows more (limits, zero, order)."""
MEMORY_PATTERN = rf"^ *{_NUMBER} *{_MEMORY_UNIT}(?: *\+| *\.\.(?: *{_NUMBER} *{_MEMORY_UNIT})?)? *$"
DURATION_PATTERN = rf"^ *(?:{_NUMBER}|(?:{_NUMBER} *(?:w|d|h|ms|m|s) *)+) *$"

_AMOUNT = re.compile(r"(-?)([0-9]*)(?:(\.)([0-9]*))? *([A-Za-z]*)")
_DURATION_PART = re.compile(rf"({_NUMBER}) *(w|d|h|ms|m|s) *")
_NOT_FINITE = frozenset({"nan", "inf", "infinity"})


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """At least `least` and, when `most` is not None, at most `most`. Exact when both are equal."""

    least: int
    most: int | None

    @property
    def exact(self) -> bool:
        """Whether one amount was written, and not a range."""
        return self.least == self.most


class _Measure(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    units: _Units
    maximum: int
    maximum_text: str
    examples: str
    fold_case: bool

    def refuse(self, text: str, why: str) -> SpecError:
        shown = text if len(text) <= AMOUNT_CHARS_MAX else text[:AMOUNT_CHARS_MAX] + "…"
        return SpecError(f"{shown!r} is not {self.what}: {why}", hint=f"write for example {self.examples}")


_CPU = _Measure(
    what="an amount of cores",
    units=_CPU_UNITS,
    maximum=CPU_MILLI_MAX,
    maximum_text="100,000 cores",
    examples=CPU_EXAMPLES,
    fold_case=False,
)
_MEMORY = _Measure(
    what="an amount of memory",
    units=_MEMORY_UNITS,
    maximum=MEMORY_BYTES_MAX,
    maximum_text="1 PiB",
    examples=MEMORY_EXAMPLES,
    fold_case=True,
)
_DURATION = _Measure(
    what="a duration",
    units=_DURATION_UNITS,
    maximum=DURATION_MS_MAX,
    maximum_text="3,650 days",
    examples=DURATION_EXAMPLES,
    fold_case=False,
)


def parse_cpu(text: str) -> Amount:
    """Cores as millicores. Raises SpecError."""
    return _range(text, _CPU)


def parse_memory(text: str) -> Amount:
    """Memory as bytes; a plain number is GB. Raises SpecError."""
    return _range(text, _MEMORY)


def parse_duration_ms(text: str) -> int:
    """A duration as milliseconds; a plain number is seconds. Raises SpecError."""
    stripped = _checked(text, _DURATION)
    parts = _duration_parts(stripped)
    if not parts:
        return _one(f"{stripped}s" if stripped[-1:].isdigit() else stripped, _DURATION, text)
    units = list(_DURATION_UNITS)
    order = [units.index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise _DURATION.refuse(text, "each unit stands once, the larger before the smaller")
    for number, _ in parts:
        _plain_number(number, _DURATION, text)
    total = sum(_scaled(number, _DURATION_UNITS[unit]) for number, unit in parts)
    return _bounded(total, _DURATION, text)


def format_cpu(milli: int) -> str:
    """Millicores as cores, without a word for them: ``2``, ``0.5``."""
    whole, rest = divmod(milli, 1_000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)


def format_bytes(size_bytes: int) -> str:
    """Bytes in the largest fitting unit with at most two decimals; ``≈`` in front when that is rounded."""
    for unit in ("p", "t", "g", "m", "k"):
        factor = _BINARY[unit]
        if size_bytes >= factor:
            hundredths, rest = divmod(size_bytes * 100, factor)
            if rest:
                hundredths += 2 * rest >= factor
            text = f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".")
            return f"{'≈' if rest else ''}{text} {unit.upper()}iB"
    return f"{size_bytes} B"


def format_duration_ms(duration_ms: int) -> str:
    """A duration of zero or more in days, hours, minutes, seconds, milliseconds: ``1h30m``, ``0s``."""
    parts: list[str] = []
    rest = duration_ms
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _DURATION_UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _range(text: str, measure: _Measure) -> Amount:
    """One amount, ``a+``, ``a..`` or ``a..b``."""
    stripped = _checked(text, measure)
    if stripped.endswith("+"):
        return Amount(least=_one(stripped[:-1].strip(), measure, text), most=None)
    least_text, dots, most_text = stripped.partition("..")
    if not dots:
        value = _one(stripped, measure, text)
        return Amount(least=value, most=value)
    if not least_text.strip():
        raise measure.refuse(text, "the least amount is missing before `..`")
    least = _one(least_text.strip(), measure, text)
    if not most_text.strip():
        return Amount(least=least, most=None)
    most = _one(most_text.strip(), measure, text)
    if most < least:
        raise measure.refuse(text, "the upper end of the range is below the lower end")
    return Amount(least=least, most=most)


def _checked(text: str, measure: _Measure) -> str:
    stripped = text.strip(" ")
    if len(stripped) > AMOUNT_CHARS_MAX:
        raise measure.refuse(stripped, f"it is longer than {AMOUNT_CHARS_MAX} characters")
    if stripped.lower().lstrip("+-.") in _NOT_FINITE:
        raise measure.refuse(stripped, "it is not a finite number")
    return stripped


def _one(stripped: str, measure: _Measure, text: str) -> int:
    """One amount with its unit; `text` is what the user wrote, for the message."""
    match = _AMOUNT.fullmatch(stripped)
    number = match.group(2) + (match.group(3) or "") + (match.group(4) or "") if match else ""
    if match is None or number.strip(".") == "":
        raise measure.refuse(text, "it is not a plain decimal number with a unit")
    if match.group(1) == "-":
        raise measure.refuse(text, "it is negative")
    _plain_number(number, measure, text)
    unit = match.group(5).lower() if measure.fold_case else match.group(5)
    factor = measure.units.get(unit)
    if factor is None:
        raise measure.refuse(text, f"{match.group(5)!r} is no unit of it")
    return _bounded(_scaled(number, factor), measure, text)


def _plain_number(number: str, measure: _Measure, text: str) -> None:
    if len(number) > 1 and number[0] == "0" and number[1] != ".":
        raise measure.refuse(text, "a leading zero means base eight to some readers of YAML")


def _scaled(number: str, factor: int) -> int:
    """A decimal number times a factor, rounded up."""
    whole, _, fraction = number.partition(".")
    tens: int = 10 ** len(fraction)
    return -(-int(f"{whole}{fraction}") * factor // tens)


def _bounded(value: int, measure: _Measure, text: str) -> int:
    if value == 0:
        raise measure.refuse(text, "it must be more than zero")
    if value > measure.maximum:
        raise measure.refuse(text, f"the most is {measure.maximum_text}")
    return value


def _duration_parts(text: str) -> list[tuple[str, str]]:
    """``1h30m`` as [("1", "h"), ("30", "m")]; empty when it is anything else."""
    parts: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            return []
        parts.append((match.group(1), match.group(2)))
        position = match.end()
    return parts


def format_usd_micro(usd_micro: int) -> str:
    """Money as people write it, to the ten-thousandth of a dollar: ``$0.9731``, ``$3.06``, ``$1,204.00``."""
    cents = f"{usd_micro / 1_000_000:,.4f}"
    return "$" + (cents[:-2] if cents.endswith("00") else cents)
