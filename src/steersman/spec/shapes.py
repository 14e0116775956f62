"""What a value may look like: one object that reads it, and describes it to editors.

Theory: the table of keys gives every key a shape. `read` turns a node into a typed value or raises SpecError
with path and line; `schema` is the same rule as JSON Schema. Both stand side by side, so that parser and
schema cannot drift apart; a schema may accept more than `read` (limits, order), never less.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from steersman.model.errors import SpecError
from steersman.model.units import (
    CPU_PATTERN,
    DURATION_PATTERN,
    MEMORY_PATTERN,
    Amount,
    parse_cpu,
    parse_duration_ms,
    parse_memory,
)
from steersman.spec.nodes import ListNode, MapNode, Node, ScalarNode, describe
from steersman.spec.place import Place, show

JsonSchema: TypeAlias = dict[str, Any]
"""A JSON Schema, as JSON values. The only place where the type of a value is open, as JSON itself is."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ITEMS_MAX = 1_000
"""The most items of one list or entries of one map that a user writes."""
INTEGER_DIGITS_MAX = 18
"""The most digits of a whole number."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
SCALAR_TYPES = ["string", "number", "boolean"]
"""JSON types of a scalar that is taken as its text."""


class Shape(Protocol[T_co]):
    """Reads one kind of value, and describes it."""

    def read(self, node: Node, place: Place) -> T_co:
        """The value. Raises SpecError."""
        ...

    def schema(self) -> JsonSchema: ...


def scalar_text(node: Node, place: Place, what: str) -> str:
    """The text of a single value as the user wrote it; `what` says what it should have been."""
    if not isinstance(node, ScalarNode):
        raise place.error(
            node.line, f"{what} is wanted here, and this is {describe(node)}", "write one value"
        )
    if node.is_null:
        raise place.error(
            node.line, f"{what} is wanted here, and nothing stands here", "give a value or remove the key"
        )
    return node.text


def bare_text(node: Node, place: Place, what: str) -> str:
    """The text of a value that is a number or a flag, and therefore stands without quotes."""
    text = scalar_text(node, place, what)
    if isinstance(node, ScalarNode) and not node.plain:
        raise place.error(node.line, f"{what} is wanted here, and this is a string", "remove the quotes")
    return text


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A string, in the characters the user wrote: an unquoted ``no`` or ``0x10`` stays that text.

    One line unless `block`. `pattern` must match the whole text.
    """

    what: str
    pattern: str | None = None
    rule: str = ""
    chars_max: int = 256
    block: bool = False
    empty: bool = False

    def read(self, node: Node, place: Place) -> str:
        text = scalar_text(node, place, self.what)
        if not self.empty and not text.strip():
            raise place.error(node.line, f"{self.what} must not be empty", "give one or remove the key")
        if len(text) > self.chars_max:
            raise place.error(
                node.line, f"{self.what} is longer than {self.chars_max:,} characters", "make it shorter"
            )
        if "\0" in text or (not self.block and _CONTROL.search(text)):
            raise place.error(node.line, f"{self.what} holds a control character: {show(text)}", "remove it")
        if self.pattern is not None and re.fullmatch(self.pattern, text) is None:
            raise place.error(node.line, f"{show(text)} cannot be {self.what}", self.rule)
        return text

    def schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": SCALAR_TYPES, "maxLength": self.chars_max}
        if not self.empty:
            schema["minLength"] = 1
        if self.pattern is not None:
            schema["pattern"] = f"^(?:{self.pattern})$"
        return schema


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """``true`` or ``false``. YAML 1.1's ``yes`` and ``no`` are refused, for newer YAML reads them as text."""

    def read(self, node: Node, place: Place) -> bool:
        text = bare_text(node, place, "`true` or `false`")
        if text not in {"true", "false"}:
            raise place.error(
                node.line, f"{show(text)} is neither `true` nor `false`", "write `true` or `false`"
            )
        return text == "true"

    def schema(self) -> JsonSchema:
        return {"type": "boolean"}


class Integer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole number within bounds, both included, or one of `words`, each standing for a number."""

    what: str
    least: int
    most: int
    words: tuple[tuple[str, int], ...] = ()

    def read(self, node: Node, place: Place) -> int:
        text = scalar_text(node, place, self.what)
        value = dict(self.words).get(text)
        if value is not None:
            return value
        return self._number(bare_text(node, place, self.what), node.line, place)

    def _number(self, text: str, line: int, place: Place) -> int:
        hint = f"write {self._words()}a whole number from {self.least} to {self.most}"
        if _INTEGER.fullmatch(text) is None:
            raise place.error(line, f"{show(text)} is not {self.what}", hint)
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            raise place.error(
                line, f"{show(text)} has a leading zero, which some readers of YAML take as base eight", hint
            )
        value = int(text) if len(digits) <= INTEGER_DIGITS_MAX else None
        if value is None or not self.least <= value <= self.most:
            raise place.error(line, f"{show(text)} is out of range for {self.what}", hint)
        return value

    def _words(self) -> str:
        return "".join(f"`{word}`, " for word, _ in self.words) + ("or " if self.words else "")

    def schema(self) -> JsonSchema:
        number: JsonSchema = {"type": "integer", "minimum": self.least, "maximum": self.most}
        words = [word for word, _ in self.words]
        return {"anyOf": [number, {"enum": words}]} if words else number


class Positive(msgspec.Struct, frozen=True, kw_only=True):
    """A plain number above zero, kept as its text."""

    what: str

    def read(self, node: Node, place: Place) -> str:
        text = bare_text(node, place, self.what)
        match = _DECIMAL.fullmatch(text)
        if match is None or match.group(1) == "-" or not text.strip("+.0") or len(text) > INTEGER_DIGITS_MAX:
            raise place.error(
                node.line, f"{show(text)} is not {self.what}", "write a number above zero, as 0.5 or 12"
            )
        return text

    def schema(self) -> JsonSchema:
        return {"type": "number", "exclusiveMinimum": 0}


class Choice(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One of some words; the value is what the word stands for."""

    what: str
    options: tuple[tuple[str, T], ...]

    def read(self, node: Node, place: Place) -> T:
        text = scalar_text(node, place, self.what)
        for word, value in self.options:
            if text == word:
                return value
        words = ", ".join(word for word, _ in self.options)
        raise place.error(node.line, f"{show(text)} is not {self.what}", f"write one of: {words}")

    def schema(self) -> JsonSchema:
        return {"enum": [word for word, _ in self.options]}


class Quantity(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An amount with a unit, read by a function of `model.units`."""

    what: str
    parse: Callable[[str], T]
    pattern: str

    def read(self, node: Node, place: Place) -> T:
        text = scalar_text(node, place, self.what)
        try:
            return self.parse(text)
        except SpecError as error:
            raise place.located(node.line, error) from error

    def schema(self) -> JsonSchema:
        return {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": self.pattern}]
        }


class DurationOrOff(msgspec.Struct, frozen=True, kw_only=True):
    """A duration, or ``off`` for no limit, which is None."""

    def read(self, node: Node, place: Place) -> int | None:
        if isinstance(node, ScalarNode) and node.text == "off":
            return None
        return DURATION.read(node, place)

    def schema(self) -> JsonSchema:
        return {"anyOf": [*DURATION.schema()["anyOf"], {"const": "off"}]}


class DurationOrAuto(msgspec.Struct, frozen=True, kw_only=True):
    """A duration, or ``auto`` for "choose it", which is None."""

    def read(self, node: Node, place: Place) -> int | None:
        if isinstance(node, ScalarNode) and node.text == "auto":
            return None
        return DURATION.read(node, place)

    def schema(self) -> JsonSchema:
        return {"anyOf": [*DURATION.schema()["anyOf"], {"const": "auto"}]}


class ListOf(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A list, or nothing for an empty one. With `single`, one item may stand without the list."""

    what: str
    item: Shape[T]
    single: bool = False
    items_max: int = ITEMS_MAX

    def read(self, node: Node, place: Place) -> tuple[T, ...]:
        if isinstance(node, ScalarNode) and node.is_null:
            return ()
        if not isinstance(node, ListNode):
            if self.single:
                return (self.item.read(node, place),)
            message = f"a list of {self.what} is wanted here, and this is {describe(node)}"
            raise place.error(node.line, message, "write `[…]` with the items inside")
        if len(node.items) > self.items_max:
            raise place.error(
                node.line, f"a list of {self.what} holds at most {self.items_max:,}", "give fewer"
            )
        return tuple(self.item.read(item, place.at(str(index))) for index, item in enumerate(node.items))

    def schema(self) -> JsonSchema:
        item = self.item.schema()
        schemas: list[JsonSchema] = [
            {"type": "array", "items": item, "maxItems": self.items_max},
            {"type": "null"},
        ]
        return {"anyOf": [*schemas, item] if self.single else schemas}


class MapOf(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A mapping from names of the user's choice, sorted by name; nothing stands for an empty one."""

    what: str
    key: Shape[str]
    value: Shape[T]

    def read(self, node: Node, place: Place) -> tuple[tuple[str, T], ...]:
        if isinstance(node, ScalarNode) and node.is_null:
            return ()
        if not isinstance(node, MapNode):
            message = f"{self.what} are written as `NAME: value`, and this is {describe(node)}"
            raise place.error(node.line, message, "write `{NAME: value}`, or one a line")
        if len(node.entries) > ITEMS_MAX:
            raise place.error(node.line, f"there are more than {ITEMS_MAX:,} {self.what}", "give fewer")
        pairs: list[tuple[str, T]] = []
        for entry in node.entries:
            below = place.at(entry.key.text)
            pairs.append((self.key.read(entry.key, below), self.value.read(entry.value, below)))
        return tuple(sorted(pairs, key=lambda pair: pair[0]))

    def schema(self) -> JsonSchema:
        return {
            "type": ["object", "null"],
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
            "maxProperties": ITEMS_MAX,
        }


class Anything(msgspec.Struct, frozen=True, kw_only=True):
    """A value nobody looks into, because its key is not honoured."""

    def read(self, node: Node, place: Place) -> None:  # noqa: ARG002 - a shape has this face
        return None

    def schema(self) -> JsonSchema:
        return {}


CPU: Quantity[Amount] = Quantity(what="an amount of cores", parse=parse_cpu, pattern=CPU_PATTERN)
MEMORY: Quantity[Amount] = Quantity(what="an amount of memory", parse=parse_memory, pattern=MEMORY_PATTERN)
DURATION: Quantity[int] = Quantity(what="a duration", parse=parse_duration_ms, pattern=DURATION_PATTERN)
