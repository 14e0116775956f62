"""How accelerators are written: kinds, counts, parts of one, alternatives; of a rank, and of a node."""

import re
from decimal import Decimal
from typing import NamedTuple, TypeAlias

import msgspec

from steersman.model.devices import modes_of
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI
from steersman.spec.nodes import Entry, ListNode, Node, ScalarNode, is_null
from steersman.spec.place import Place, show
from steersman.spec.shapes import ITEMS_MAX, SCALAR_TYPES, JsonSchema, scalar_text

ACCELERATORS_MAX = 1_024
"""The most accelerators of one kind that one rank or node may have."""
MILLI_DIGITS = 3
"""A part of a device is given in thousandths at the finest."""
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_BY_MEMORY = re.compile(r"[0-9.]+ *[MGT]i?B.*", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,9}")
_FRACTION = re.compile(r"0?\.[0-9]+|[0-9]+\.[0-9]+")

Kinds: TypeAlias = tuple[tuple[str, int], ...]


class NodeAccelerators(msgspec.Struct, frozen=True, kw_only=True):
    """``A100``, ``A100:8``, ``{A100: 8}`` or a list of these, as (kind, count) sorted by kind."""

    def read(self, node: Node, place: Place) -> Kinds:
        kinds: list[tuple[str, int]] = []
        for kind, milli, line in accelerators_in(node, place):
            if milli % WHOLE_MILLI:
                raise place.error(line, "a node has whole accelerators", "write for example A100:8")
            if kind == ANY_KIND:
                raise place.error(line, f"{ANY_KIND!r} is no kind of accelerator", "write for example A100:8")
            kinds.append((kind, milli // WHOLE_MILLI))
        _check_once(kinds, node.line, place)
        return tuple(sorted(kinds))

    def schema(self) -> JsonSchema:
        return accelerators_schema()


class WantedAccelerators(NamedTuple):
    """What one rank asks for: kinds and counts, and thousandths of each device."""

    kinds: Kinds = ()
    device_milli: int = WHOLE_MILLI


class Accelerators(msgspec.Struct, frozen=True, kw_only=True):
    """``A100``, ``A100:8``, ``A100:0.5``, ``any:1``, ``{A100: 8}``, or a list of these.

    Several kinds are alternatives, as in SkyPilot: any will do. Alternatives that ask for another number of
    devices than the first are passed over, with a warning.
    """

    def read(self, node: Node, place: Place) -> WantedAccelerators:
        found = accelerators_in(node, place)
        if not found:
            return WantedAccelerators()
        kind, milli, line = found[0]
        _check_once([(each, 1) for each, _, _ in found], node.line, place)
        same = [each for each, other, _ in found if other == milli]
        if len(same) < len(found):
            over = ", ".join(
                f"{each}:{Decimal(other) / WHOLE_MILLI}" for each, other, _ in found if other != milli
            )
            asked = f"{kind}:{Decimal(milli) / WHOLE_MILLI}"
            words = "alternatives must ask for as many devices as the first"
            place.warn(node.line, f"{over} is passed over: {words}, {asked}")
        if milli % WHOLE_MILLI == 0:
            return WantedAccelerators(((_joined(same), milli // WHOLE_MILLI),))
        whole = [each for each in same if each != ANY_KIND and not modes_of(each)]
        if milli > WHOLE_MILLI or whole:
            what = f"{whole[0]} devices are handed out whole" if whole else "a part is of one device"
            raise place.error(line, what, "ask for 1, 2, 3 … of them, or for a part of a GPU, as A100:0.5")
        return WantedAccelerators(((_joined(same), 1),), milli)

    def schema(self) -> JsonSchema:
        return accelerators_schema()


def _joined(kinds: list[str]) -> str:
    return ANY_KIND if ANY_KIND in kinds else ALTERNATIVES.join(sorted(kinds))


def _check_once(kinds: list[tuple[str, int]], line: int, place: Place) -> None:
    names = [kind for kind, _ in kinds]
    if len(set(names)) < len(names):
        raise place.error(line, "a kind of accelerator stands twice", "give each kind once, with its count")


def accelerators_in(node: Node, place: Place) -> list[tuple[str, int, int]]:
    """(kind, thousandths of devices, line) of each accelerator that is written, in order."""
    if is_null(node):
        return []
    if isinstance(node, ScalarNode):
        return [_named(node.text, node.line, place)]
    if len(node.items if isinstance(node, ListNode) else node.entries) > ITEMS_MAX:
        raise place.error(node.line, f"there are more than {ITEMS_MAX:,} kinds of accelerators", "give fewer")
    if isinstance(node, ListNode):
        texts = [(scalar_text(item, place, "an accelerator"), item.line) for item in node.items]
        return [_named(text, line, place) for text, line in texts]
    return [_entry(entry, place) for entry in node.entries]


def _entry(entry: Entry, place: Place) -> tuple[str, int, int]:
    if is_null(entry.value):  # SkyPilot's set notation, {'A100:1', 'V100:1'}, is a mapping to nothing
        return _named(entry.key.text, entry.key.line, place)
    count = scalar_text(entry.value, place, "a number of accelerators")
    return _named(f"{entry.key.text}:{count}", entry.key.line, place)


def _named(text: str, line: int, place: Place) -> tuple[str, int, int]:
    hint = "write for example A100, A100:8, A100:0.5 or {A100: 8}"
    kind, colon, count = text.partition(":")
    if _BY_MEMORY.fullmatch(text):
        raise place.not_yet(line, "choosing accelerators by their memory is not built yet", hint)
    if _KIND.fullmatch(kind) is None:
        raise place.error(line, f"{show(text)} is not an accelerator", hint)
    if not colon:
        return kind, WHOLE_MILLI, line
    if _FRACTION.fullmatch(count):
        whole, _, part = count.partition(".")
        if part.strip("0") and len(part.rstrip("0")) <= MILLI_DIGITS and len(whole) <= MILLI_DIGITS:
            return kind, int(whole or 0) * WHOLE_MILLI + int(part.rstrip("0").ljust(MILLI_DIGITS, "0")), line
    if _COUNT.fullmatch(count) is None or not 1 <= int(count) <= ACCELERATORS_MAX:
        message = f"{show(text)} does not ask for 1 to {ACCELERATORS_MAX:,} accelerators, or a part of one"
        raise place.error(line, message, hint)
    return kind, int(count) * WHOLE_MILLI, line


def accelerators_schema() -> JsonSchema:
    """Of both: the number of devices is looked at when it is read."""
    one: JsonSchema = {"type": SCALAR_TYPES}
    count: JsonSchema = {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}, {"type": "null"}]
    }
    return {
        "anyOf": [
            one,
            {"type": "array", "items": one},
            {"type": "object", "additionalProperties": count},
            {"type": "null"},
        ]
    }
