"""Shapes of numbers within bounds: spans of time, plain seconds, thousandths, sizes, real numbers.

Theory: a bound is part of the shape, so that it is checked where the value is read and named in the message
with its unit. Everything but `Real` is read with integer arithmetic from its text, a fraction that does not
come out even being rounded up, as in `model.units`.
"""

import math
import re

import msgspec

from steersman.model.pools import SENTINELS_USD_MICRO_PER_HOUR
from steersman.model.units import DURATION_PATTERN, format_bytes, format_duration_ms
from steersman.spec.nodes import Node
from steersman.spec.place import Place, show
from steersman.spec.shapes import DURATION, MEMORY, JsonSchema, bare_text, scalar_text

USD_MICRO_PER_HOUR_MAX = 100_000 * 1_000_000
"""The highest price of a node: 100,000 dollars an hour."""
NUMBER_CHARS_MAX = 64
"""The longest text of a number, in characters."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]*))?|\.([0-9]+)")
_REAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ZERO_SPAN = re.compile(r" *0(?:\.0*)? *(?:w|d|h|ms|m|s)? *")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A duration within bounds, in milliseconds. Zero is one when `least_ms` is 0."""

    what: str
    least_ms: int
    most_ms: int

    def read(self, node: Node, place: Place) -> int:
        text = scalar_text(node, place, self.what)
        zero = self.least_ms == 0 and _ZERO_SPAN.fullmatch(text) is not None
        value = 0 if zero else DURATION.read(node, place)
        if not self.least_ms <= value <= self.most_ms:
            raise place.error(
                node.line,
                f"{show(text)} is out of range for {self.what}",
                f"write {format_duration_ms(self.least_ms)} to {format_duration_ms(self.most_ms)}",
            )
        return value

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]}


class Dollars(msgspec.Struct, frozen=True, kw_only=True):
    """A price in dollars an hour, as whole micro-dollars, rounded up. Zero is no price, nor is a sentinel."""

    what: str = "a price in dollars an hour"

    def read(self, node: Node, place: Place) -> int:
        text = bare_text(node, place, self.what)
        match = _DECIMAL.fullmatch(text) if len(text) <= NUMBER_CHARS_MAX else None
        value = None if match is None else _micro(match)
        if value is None or not 0 < value <= USD_MICRO_PER_HOUR_MAX:
            raise place.error(
                node.line,
                f"{show(text)} is not {self.what}",
                "write a number above zero and at most 100000, as 0.97; leave out what is not known",
            )
        if value in SENTINELS_USD_MICRO_PER_HOUR:
            raise place.error(
                node.line,
                f"{show(text)} stands for a missing price in public catalogues, so it is not taken for one",
                "write the price, or leave the key out when it is not known",
            )
        return value

    def schema(self) -> JsonSchema:
        return {"type": "number", "exclusiveMinimum": 0, "maximum": USD_MICRO_PER_HOUR_MAX // 1_000_000}


class Thousandths(msgspec.Struct, frozen=True, kw_only=True):
    """A plain number within bounds, read as a whole number of thousandths: seconds as milliseconds."""

    what: str
    least: int
    most: int

    def read(self, node: Node, place: Place) -> int:
        text = bare_text(node, place, self.what)
        match = _DECIMAL.fullmatch(text) if len(text) <= NUMBER_CHARS_MAX else None
        value = None if match is None else _thousandths(match)
        if value is None or not self.least <= value <= self.most:
            raise place.error(
                node.line,
                f"{show(text)} is not {self.what}",
                f"write a number from {format_thousandths(self.least)} to {format_thousandths(self.most)}",
            )
        return value

    def schema(self) -> JsonSchema:
        return {"type": "number", "minimum": 0}


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One amount of memory, not a range, of at most `most_bytes`, in bytes."""

    what: str
    most_bytes: int

    def read(self, node: Node, place: Place) -> int:
        amount = MEMORY.read(node, place)
        if not amount.exact or amount.least > self.most_bytes:
            text = scalar_text(node, place, self.what)
            raise place.error(
                node.line,
                f"{show(text)} is not {self.what}",
                f"write one amount of at most {format_bytes(self.most_bytes)}, with its unit, as 4MB",
            )
        return amount.least

    def schema(self) -> JsonSchema:
        return MEMORY.schema()


class Real(msgspec.Struct, frozen=True, kw_only=True):
    """A finite number."""

    what: str

    def read(self, node: Node, place: Place) -> float:
        text = bare_text(node, place, self.what)
        plain = len(text) <= NUMBER_CHARS_MAX and _REAL.fullmatch(text) is not None
        value = float(text) if plain else math.nan
        if not math.isfinite(value):
            raise place.error(
                node.line, f"{show(text)} is not {self.what}", "write a finite number, as 0, -1.5 or 1e-3"
            )
        return value + 0.0  # minus zero is zero: equal declarations have equal bytes

    def schema(self) -> JsonSchema:
        return {"type": "number"}


def _thousandths(match: re.Match[str]) -> int:
    return _parts(match, 1_000)


def _micro(match: re.Match[str]) -> int:
    return _parts(match, 1_000_000)


def _parts(match: re.Match[str], parts: int) -> int:
    """The number in so many parts of one, rounded up."""
    whole = match.group(1) or "0"
    fraction = match.group(2) or match.group(3) or ""
    tens: int = 10 ** len(fraction)
    return -(-int(whole + fraction) * parts // tens)


def format_thousandths(thousandths: int) -> str:
    """A number of thousandths as people write it: ``2``, ``0.5``, ``1,000``."""
    whole, rest = divmod(thousandths, 1_000)
    return f"{whole:,}.{rest:03d}".rstrip("0") if rest else f"{whole:,}"
