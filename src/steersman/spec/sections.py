"""Mappings with known keys: which keys there are, how far each is honoured, and reading them by the table.

Theory: a `Section` lists its `Key`s. Opening a mapping as a section looks at every key the user wrote, in
order: an unknown one is refused with the nearest known key; one that is *not yet* built is refused with the
stable code ``not-yet`` unless its value is empty; one that is *accepted* is checked for its shape and gives a
warning; the *honoured* ones are read on request by `Fields.get`. So nothing a user writes is passed over in
silence.
"""

import difflib
from collections.abc import Mapping
from typing import Generic, Literal, TypeVar

import msgspec

from steersman.model.errors import NotYetError
from steersman.spec.nodes import Entry, ListNode, MapNode, Node, ScalarNode, describe, is_empty, is_null
from steersman.spec.place import SHOWN_CHARS_MAX, Place, show
from steersman.spec.shapes import ITEMS_MAX, JsonSchema, Shape

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Standing = Literal["honoured", "accepted", "not-yet"]
"""honoured: it has its effect; accepted: checked, and warned about; not-yet: refused with that code."""
Origin = Literal["skypilot", "dstack", "ray-serve", "steersman"]


class Key(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """One key that users may write. `note` says what it does, or why it is not honoured."""

    name: str
    shape: Shape[T_co]
    note: str
    origin: Origin = "skypilot"
    standing: Standing = "honoured"
    required: bool = False


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping with known keys. `elsewhere`: words of other tools and what to write here instead.

    `optional`: it is one of several, and passed over when a key in it is not built yet.
    """

    name: str
    title: str
    keys: tuple[Key[object], ...]
    elsewhere: tuple[tuple[str, str], ...] = ()
    optional: bool = False

    def key(self, name: str) -> Key[object] | None:
        return next((key for key in self.keys if key.name == name), None)

    def hint(self, name: str) -> str:
        """What the user may have meant by an unknown key."""
        for word, advice in self.elsewhere:
            if word == name:
                return advice
        names = [key.name for key in self.keys]
        words = dict(self.elsewhere)
        near = difflib.get_close_matches(name[:SHOWN_CHARS_MAX].lower(), [*names, *words], n=1)
        if near:
            return words.get(near[0], f"did you mean `{near[0]}`?")
        return f"the keys here are: {', '.join(names)}"


class Fields:
    """A mapping of the user, checked against its section; honoured keys are read from it one by one."""

    def __init__(self, section: Section, node: MapNode, place: Place) -> None:
        self.section, self.line, self.place = section, node.line, place
        self._entries: Mapping[str, Entry] = {entry.key.text: entry for entry in node.entries}
        for entry in node.entries:
            self._check(entry)

    def _check(self, entry: Entry) -> None:
        name, line = entry.key.text, entry.key.line
        key = self.section.key(name)
        if key is None:
            message = f"{show(name)} is not a key of {self.section.title}"
            raise self.place.at(name).error(line, message, self.section.hint(name))
        place = self.place.at(name)
        if key.standing == "not-yet" and not is_empty(entry.value):
            raise place.not_yet(line, f"`{name}` is not built yet: {key.note}", f"remove `{name}`")
        if key.standing == "accepted":
            if not is_null(entry.value):
                key.shape.read(entry.value, place)
            place.warn(line, f"accepted, and not honoured yet: {key.note}")

    def written(self, key: Key[T]) -> bool:
        return key.name in self._entries

    def line_of(self, key: Key[T]) -> int:
        """The line of a key, or of the mapping when the key is absent."""
        entry = self._entries.get(key.name)
        return self.line if entry is None else entry.key.line

    def line_below(self, key: Key[T], name: str) -> int:
        """The line of a name in the mapping of a key, or of the key itself."""
        entry = self._entries.get(key.name)
        inner = entry.value.entries if entry is not None and isinstance(entry.value, MapNode) else ()
        return next((each.key.line for each in inner if each.key.text == name), self.line_of(key))

    def get(self, key: Key[T]) -> T | None:
        """The value of a key, or None when it was not written. Raises SpecError."""
        entry = self._entries.get(key.name)
        if entry is None:
            return None
        return key.shape.read(entry.value, self.place.at(key.name))

    def get_or(self, key: Key[T], default: T) -> T:
        value = self.get(key)
        return default if value is None else value

    def read_all(self) -> None:
        """Read every honoured key, for its errors and warnings. Raises SpecError."""
        for key in self.section.keys:
            if key.standing == "honoured":
                self.get(key)

    def require(self, key: Key[T]) -> T:
        """The value of a key that must be written. Raises SpecError."""
        entry = self._entries.get(key.name)
        if entry is None:
            message = f"`{key.name}` is missing in {self.section.title}"
            raise self.place.at(key.name).error(self.line, message, f"add `{key.name}:`, {key.note}")
        return key.shape.read(entry.value, self.place.at(key.name))


class Nested(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping read as a section. With `nullable`, nothing stands for an empty one."""

    section: Section
    nullable: bool = False

    def read(self, node: Node, place: Place) -> Fields:
        if isinstance(node, MapNode):
            return Fields(self.section, node, place)
        if self.nullable and isinstance(node, ScalarNode) and node.is_null:
            return Fields(self.section, MapNode(entries=(), line=node.line), place)
        names = ", ".join(key.name for key in self.section.keys if key.standing == "honoured")
        raise place.error(
            node.line,
            f"{self.section.title} is a mapping of keys, and this is {describe(node)}",
            f"keys: {names}",
        )

    def schema(self) -> JsonSchema:
        reference: JsonSchema = {"$ref": f"#/definitions/{self.section.name}"}
        return {"anyOf": [reference, {"type": "null"}]} if self.nullable else reference


class Alternatives(msgspec.Struct, frozen=True, kw_only=True):
    """A list of sections of which the first that can be honoured is taken, with a warning for the rest.

    Every one of them must be well formed. When none can be honoured, the first one's refusal is raised.
    """

    section: Section

    def read(self, node: Node, place: Place) -> Fields | None:
        if is_null(node):
            return None
        if not isinstance(node, ListNode) or not 0 < len(node.items) <= ITEMS_MAX:
            raise place.error(
                node.line, f"a list of 1 to {ITEMS_MAX:,} alternatives is wanted here", "write `[{…}, {…}]`"
            )
        refusals: list[NotYetError] = []
        usable: list[tuple[int, Fields]] = []
        for index, item in enumerate(node.items):
            below = Place(source=place.source, path=f"{place.path}.{index}", warnings=[])
            try:
                fields = Nested(section=self.section).read(item, below)
                fields.read_all()
            except NotYetError as error:
                refusals.append(error)
            else:
                usable.append((index, fields))
        if not usable:
            raise refusals[0]
        chosen, fields = usable[0]
        place.warnings.extend(fields.place.warnings)
        if len(node.items) > 1:
            place.warn(node.line, f"of {len(node.items)} alternatives only number {chosen + 1} is used yet")
        return fields

    def schema(self) -> JsonSchema:
        items: JsonSchema = {"$ref": f"#/definitions/{self.section.name}"}
        return {
            "anyOf": [
                {"type": "array", "items": items, "minItems": 1, "maxItems": ITEMS_MAX},
                {"type": "null"},
            ]
        }
