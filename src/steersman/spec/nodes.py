"""YAML text to plain nodes with line numbers, under limits that hold for any input.

Theory: the YAML library is used for its event stream only. The tree is built here without recursion, so a
deeply nested text meets `DEPTH_MAX` and not the interpreter's stack. No scalar is given a type: a node keeps
the text that the user wrote, and whoever wants a number or a flag asks for it. So ``no``, ``1:30``, ``0x10``
and ``1e3`` stay what they are wherever a string is wanted.

An alias is a second reference to one node. Its size after expansion is added up without expanding it, so
that an alias bomb meets `NODES_MAX` at once. ``<<`` merges mappings as YAML 1.1 does; a key written twice in
one mapping is refused, in contrast to YAML libraries, which keep the last.
"""

import re
from collections.abc import Iterator

import msgspec
import yaml

from steersman.model.errors import SpecError
from steersman.spec.place import show, step

BYTES_MAX = 1_048_576
"""The largest file, in bytes: 1 MiB."""
NODES_MAX = 50_000
"""The most nodes of one text, aliases counted as if written out."""
DEPTH_MAX = 32
"""The deepest nesting, in collections."""

NULLS = frozenset({"", "~", "null", "Null", "NULL"})

_FLAGS = {"true": True, "True": True, "false": False, "False": False}
_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[+-]?[0-9]{1,18}\.[0-9]{1,18}")

_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_STRING_TAGS = frozenset({"!", f"{_TAG}str"})
_PLAIN_TAGS = frozenset({None, "!", f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"})


class ScalarNode(msgspec.Struct, frozen=True, kw_only=True):
    """A single value as written. `plain`: neither quoted nor a block, so that ``null`` means nothing."""

    text: str
    plain: bool
    line: int

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in NULLS


class ListNode(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple["Node", ...]
    line: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    key: ScalarNode
    value: "Node"


class MapNode(msgspec.Struct, frozen=True, kw_only=True):
    """Keys are unique; in the order written, merged ones after the mapping's own."""

    entries: tuple[Entry, ...]
    line: int


Node = ScalarNode | ListNode | MapNode


Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def plain(node: Node) -> Plain:
    """A value that nobody here looks into, as JSON has it: for keys that are another tool's own."""
    if isinstance(node, MapNode):
        return {entry.key.text: plain(entry.value) for entry in node.entries}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    if node.is_null:
        return None
    return _FLAGS.get(node.text, _number(node.text)) if node.plain else node.text


def _number(text: str) -> int | float | str:
    """The number that an unquoted text is, or the text."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text


def is_null(node: Node) -> bool:
    """Whether the user wrote nothing here, or ``null``."""
    return isinstance(node, ScalarNode) and node.is_null


def is_empty(node: Node) -> bool:
    """Null, or a collection without content."""
    if isinstance(node, ScalarNode):
        return node.is_null
    return not (node.items if isinstance(node, ListNode) else node.entries)


def describe(node: Node) -> str:
    """What a node is, for a message."""
    if isinstance(node, ScalarNode):
        return "nothing" if node.is_null else show(node.text)
    return "a list" if isinstance(node, ListNode) else "a mapping"


def decode(data: bytes, source: str) -> str:
    """The text of a file. Raises SpecError when it is too large or not UTF-8."""
    if len(data) > BYTES_MAX:
        raise _too_large(source)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"the file is not UTF-8 text: byte {error.start} (0x{data[error.start]:02x}) does not belong",
            hint="save it as UTF-8",
            source=source,
            line=line,
        ) from error


def compose(text: str, source: str) -> tuple[Node, ...]:
    """The documents of a text, empty ones left out. Raises SpecError; the work is bounded by the limits."""
    if len(text) > BYTES_MAX:
        raise _too_large(source)
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        raise SpecError(
            f"the text holds the control character U+{ord(bad.group()):04X}",
            hint="remove it, or write it as an escape in a double-quoted string",
            source=source,
            line=text.count("\n", 0, bad.start()) + 1,
        )
    composer = _Composer(source)
    for event in _events(text, source):
        composer.take(event)
    return tuple(document for document in composer.documents if not is_null(document))


def _too_large(source: str) -> SpecError:
    return SpecError(
        f"the file is larger than {BYTES_MAX:,} bytes",
        hint="split it into several files and give their folder",
        source=source,
    )


def _events(text: str, source: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise SpecError(
            f"this is not valid YAML: {problem}",
            hint="check the indentation, the colons and the quotes near this line",
            source=source,
            line=None if mark is None else mark.line + 1,
        ) from error
    except (ValueError, OverflowError) as error:
        # the pure Python scanner lets these escape: a version or an escape with a number out of range
        raise SpecError(
            "this is not valid YAML: a number in it is out of range",
            hint="check its `%YAML` line and its escapes such as \\U0010FFFF",
            source=source,
        ) from error


class _Sized(msgspec.Struct, frozen=True):
    """A finished node with its expanded size and height."""

    node: Node
    size: int
    height: int


class _Open:
    """A collection whose end has not come yet."""

    def __init__(self, line: int, anchor: str | None, *, is_map: bool) -> None:
        self.line, self.anchor, self.is_map = line, anchor, is_map
        self.children: list[Node] = []
        self.size, self.height = 1, 1

    def add(self, child: _Sized) -> None:
        self.children.append(child.node)
        self.size += child.size
        self.height = max(self.height, child.height + 1)

    def label(self) -> str:
        """The key or index of the child being read, for paths."""
        if not self.is_map:
            return str(len(self.children))
        key = self.children[-1] if len(self.children) % 2 else None
        return step(key.text) if isinstance(key, ScalarNode) else ""


class _Composer:
    """Events in, documents out. One instance per text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.documents: list[Node] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, _Sized] = {}
        self.count = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        line = mark.line + 1 if mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self.anchors = {}
            case yaml.ScalarEvent():
                self._tag(event.tag, line)
                plain = not event.style and event.tag not in _STRING_TAGS
                self._scalar(ScalarNode(text=event.value, plain=plain, line=line), event.anchor)
            case yaml.AliasEvent():
                self._alias(str(event.anchor), line)
            case yaml.CollectionStartEvent():
                self._tag(event.tag, line)
                self._open(event, line)
            case yaml.CollectionEndEvent():
                self._close()
            case _:
                pass  # the start and end of the stream and the end of a document carry nothing

    def _scalar(self, node: ScalarNode, anchor: str | None) -> None:
        if _SURROGATE.search(node.text):
            raise self._error(
                node.line,
                "an escape in this string is half a character (a surrogate)",
                "write the character itself",
            )
        self._finish(_Sized(node, 1, 0), anchor)

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        self.stack.append(_Open(line, event.anchor, is_map=isinstance(event, yaml.MappingStartEvent)))
        if event.anchor is not None:
            # a name may be given again; until this node is finished it names nothing that can be used
            self.anchors.pop(event.anchor, None)
        self._deep(line, 0)

    def _close(self) -> None:
        opened = self.stack.pop()
        if opened.is_map:
            node: Node = self._map(opened)
        else:
            node = ListNode(items=tuple(opened.children), line=opened.line)
        self.count -= opened.size - 1  # its children were counted one by one
        self._finish(_Sized(node, opened.size, opened.height), opened.anchor)

    def _alias(self, name: str, line: int) -> None:
        target = self.anchors.get(name)
        if target is None:
            if any(opened.anchor == name for opened in self.stack):
                raise self._error(
                    line, f"the alias {show('*' + name)} stands inside what it names", "remove the alias"
                )
            raise self._error(
                line,
                f"the alias {show('*' + name)} names nothing above it",
                "name the value with `&` first, in this document",
            )
        self._deep(line, target.height)
        self._finish(target, None)

    def _finish(self, sized: _Sized, anchor: str | None) -> None:
        self.count += sized.size
        if self.count > NODES_MAX:
            raise self._error(
                sized.node.line,
                f"the text has more than {NODES_MAX:,} values, aliases written out",
                "split it into several files, and use fewer aliases",
            )
        if anchor is not None:
            self.anchors[anchor] = sized
        if self.stack:
            self.stack[-1].add(sized)
        else:
            self.documents.append(sized.node)

    def _map(self, opened: _Open) -> MapNode:
        keys, values = opened.children[::2], opened.children[1::2]
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, ScalarNode) or key.is_null:
                raise self._error(
                    key.line, f"a key must be a name, and this is {describe(key)}", "write `key: value`"
                )
            if key.plain and key.text == "<<":
                for entry in self._merge(value):
                    merged.setdefault(entry.key.text, entry)
                continue
            first = own.setdefault(key.text, Entry(key=key, value=value))
            if first.key is not key:
                raise self._duplicate(first.key, key)
        rest = (entry for name, entry in merged.items() if name not in own)
        return MapNode(entries=(*own.values(), *rest), line=opened.line)

    def _merge(self, value: Node) -> Iterator[Entry]:
        maps = value.items if isinstance(value, ListNode) else (value,)
        for each in maps:
            if not isinstance(each, MapNode):
                raise self._error(
                    value.line, "`<<` takes a mapping or a list of mappings", "write `<<: *name`"
                )
            yield from each.entries

    def _duplicate(self, first: ScalarNode, second: ScalarNode) -> SpecError:
        return self._error(
            second.line,
            f"the key {show(second.text)} stands twice: in line {first.line} and in line {second.line}",
            "keep one of them",
        )

    def _deep(self, line: int, height: int) -> None:
        if len(self.stack) + height > DEPTH_MAX:
            raise self._error(
                line,
                f"the text nests more than {DEPTH_MAX} levels deep",
                "no key needs that: make it flatter",
            )

    def _tag(self, tag: str | None, line: int) -> None:
        if tag not in _PLAIN_TAGS:
            raise self._error(
                line,
                f"the YAML tag {show(str(tag))} is not accepted",
                "remove it: values are read by their key",
            )

    def _error(self, line: int, message: str, hint: str) -> SpecError:
        path = ".".join(label for label in (opened.label() for opened in self.stack) if label)
        return SpecError(message, hint=hint, source=self.source, path=path, line=line)
