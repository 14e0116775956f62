"""YAML to nodes: limits, duplicates, aliases, merges, tags; alike with libyaml and without it."""

import pytest
import yaml

from steersman.model.errors import SpecError
from steersman.spec import nodes
from steersman.spec.nodes import (
    BYTES_MAX,
    DEPTH_MAX,
    NODES_MAX,
    ListNode,
    MapNode,
    Node,
    ScalarNode,
    compose,
    decode,
    describe,
    is_empty,
)

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__, autouse=True)
def _each_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test of this file runs on the pure Python reader and on libyaml."""
    monkeypatch.setattr(nodes, "_LOADER", request.param)


def plain(node: Node) -> object:
    match node:
        case ScalarNode():
            return node.text
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {entry.key.text: plain(entry.value) for entry in node.entries}


def one(text: str) -> Node:
    (document,) = compose(text, "f.yaml")
    return document


def refusal(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        compose(text, "f.yaml")
    assert caught.value.source == "f.yaml"
    assert caught.value.hint
    return caught.value


def test_scalars_keep_the_text_of_the_user() -> None:
    text = "a: no\nb: 0x10\nc: 1:30\nd: 010\ne: 1e3\nf: 2026-01-01\ng: 'x'\nh: =\n"
    assert plain(one(text)) == {
        "a": "no", "b": "0x10", "c": "1:30", "d": "010", "e": "1e3", "f": "2026-01-01", "g": "x", "h": "=",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "null"),
    [
        ("", True),
        ("~", True),
        ("null", True),
        ("NULL", True),
        ("'null'", False),
        ("!!str null", False),
        ("|\n", False),
    ],
)
def test_null_is_only_what_is_written_bare(value: str, *, null: bool) -> None:
    node = one(f"a: {value}\n")
    assert isinstance(node, MapNode)
    assert nodes.is_null(node.entries[0].value) is null


def test_lines_count_from_one() -> None:
    node = one("# a comment\na: 1\nb:\n  - x\n  - y: 2\n")
    assert isinstance(node, MapNode)
    assert [entry.key.line for entry in node.entries] == [2, 3]
    items = node.entries[1].value
    assert isinstance(items, ListNode)
    assert [item.line for item in items.items] == [4, 5]


def test_several_documents_and_empty_ones() -> None:
    assert [
        plain(document) for document in compose("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n...\n", "f")
    ] == [
        {"a": "1"},
        {"b": "2"},
    ]
    assert compose("", "f") == ()


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    error = refusal("x:\n  a: 1\n  b: 2\n  a: 3\n")
    assert "line 2 and in line 4" in error.message
    assert error.line == 4


def test_an_alias_is_the_same_node_again() -> None:
    assert plain(one("a: &x [1, 2]\nb: *x\n&k c: 1\n")) == {"a": ["1", "2"], "b": ["1", "2"], "c": "1"}
    assert plain(one("a: &x one\nb: &x two\nc: *x\n")) == {"a": "one", "b": "two", "c": "two"}
    assert plain(one("&k a: 1\nb: {*k : 2}\n")) == {"a": "1", "b": {"a": "2"}}


def test_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\na: {<<: *b, x: 9}\nc: {<<: [*b, *m]}\n"
    node = plain(one(text))
    assert isinstance(node, dict)
    assert node["a"] == {"x": "9", "y": "2"}
    assert node["c"] == {"x": "1", "y": "2", "z": "4"}
    assert plain(one("'<<': 1\n")) == {"<<": "1"}
    assert "takes a mapping" in refusal("a: {<<: 1}\n").message


def test_alias_bombs_are_refused_without_being_expanded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
    )
    assert f"more than {NODES_MAX:,} values" in refusal(bomb).message
    merge_bomb = "m0: &m0 {k: v}\n" + "".join(
        f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}], k{n}: v}}\n" for n in range(1, 20)
    )
    assert f"more than {NODES_MAX:,} values" in refusal(merge_bomb).message


def test_aliases_that_name_nothing_or_themselves() -> None:
    assert "names nothing above it" in refusal("a: *nope\n").message
    assert "stands inside what it names" in refusal("a: &x [*x]\n").message
    assert "names nothing" in refusal("a: &x 1\n---\nb: *x\n").message
    assert "inside what it names" in refusal("a: &x 1\nb: &x [*x]\n").message


def test_many_values_are_refused() -> None:
    assert "values, aliases written out" in refusal("- a\n" * (NODES_MAX + 1)).message
    assert len(compose("- a\n" * (NODES_MAX - 1), "f")) == 1
    pairs = (NODES_MAX - 1) // 2
    assert len(compose("- [a]\n" * pairs, "f")) == 1
    assert "values, aliases written out" in refusal("- [a]\n" * (pairs + 1)).message


def test_depth() -> None:
    deep = DEPTH_MAX
    assert compose("[" * deep + "]" * deep, "f")
    assert "levels deep" in refusal("[" * (deep + 1) + "]" * (deep + 1)).message
    assert "levels deep" in refusal("[" * 500_000).message
    assert "levels deep" in refusal("? " * 100_000).message
    chain = "- &a0 [x]\n" + "".join(f"- &a{n} [*a{n - 1}]\n" for n in range(1, deep + 2))
    assert "levels deep" in refusal(chain).message


@pytest.mark.parametrize(
    "text", ["a: !!python/object:os.system x", "!x [1]", "a: !!int 5", "a: !!set {x}", "a: !!binary aGk="]
)
def test_tags_are_refused(text: str) -> None:
    assert "YAML tag" in refusal(text).message


def test_tags_that_say_what_stands_there_are_accepted() -> None:
    assert plain(one("a: !!str 5\nb: ! x\nc: !!map {}\nd: !!seq []\n")) == {
        "a": "5",
        "b": "x",
        "c": {},
        "d": [],
    }


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "? {a: 1}\n: 1\n", "? \n: 1\n", "~: 1\n"])
def test_keys_are_names(text: str) -> None:
    assert "a key must be a name" in refusal(text).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1\n", 3),
        ("a: 1\n b: 2\n", 2),
        ("a:\t- b\n", 1),
        ("a: 'x\n", 2),
        ("%YAML 3.0\n---\na: 1\n", 1),
    ],
)
def test_what_is_not_yaml_is_refused_near_the_line(text: str, line: int) -> None:
    error = refusal(text)
    assert "not valid YAML" in error.message
    assert error.line is not None
    assert abs(error.line - line) <= 1


@pytest.mark.parametrize(
    "text", ['a: "\\U00110000"', 'a: "\\UFFFFFFFF"', "%YAML 1." + "9" * 5000 + "\n---\na: 1\n"]
)
def test_numbers_out_of_range_in_escapes_and_versions(text: str) -> None:
    assert "not valid YAML" in refusal(text).message


def test_half_characters_are_refused() -> None:
    """libyaml refuses the escape itself; the pure reader lets it through to us."""
    assert refusal('a: "\\ud800"').line == 1
    assert "U+D800" in refusal("a: \ud800").message


@pytest.mark.parametrize("char", ["\0", "\x07", "\x1b", "\x7f", "\x9b", "\ufffe"])
def test_control_characters_are_refused_with_their_line(char: str) -> None:
    error = refusal(f"a: 1\nb: x{char}y\n")
    assert error.line == 2
    assert f"U+{ord(char):04X}" in error.message
    assert char not in error.message


def test_an_error_names_the_path() -> None:
    error = refusal("jobs:\n  - envs:\n      A: !x y\n")
    assert error.path == "jobs.0.envs.A"
    assert refusal('"a\\e[31m": [!x y]\n').path == "'a\\x1b[31m'.0"


def test_too_large() -> None:
    hundred_mb = bytes(100_000_000)
    with pytest.raises(SpecError, match="larger than 1,048,576 bytes"):
        decode(hundred_mb, "f.yaml")
    assert "larger than" in refusal("#" * (BYTES_MAX + 1)).message
    assert decode(b"#" * BYTES_MAX, "f.yaml") == "#" * BYTES_MAX


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"a: 1\nb: \xff\n", 2),
        ("a: 1\nb: é".encode("latin-1"), 2),
        ("a".encode("utf-16"), 1),
        (b"\n\n\xed\xa0\x80", 3),
    ],
)
def test_what_is_not_utf8(data: bytes, line: int) -> None:
    with pytest.raises(SpecError, match="not UTF-8") as caught:
        decode(data, "f.yaml")
    assert caught.value.line == line


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert plain(one(decode(b"\xef\xbb\xbfa: 1\n", "f"))) == {"a": "1"}


def test_emptiness_and_words() -> None:
    scalar = ScalarNode(text="x", plain=True, line=1)
    assert not is_empty(scalar)
    assert is_empty(ListNode(items=(), line=1))
    assert is_empty(MapNode(entries=(), line=1))
    assert describe(scalar) == "'x'"
    assert describe(ScalarNode(text="", plain=True, line=1)) == "nothing"
    assert describe(ListNode(items=(), line=1)) == "a list"
    assert describe(MapNode(entries=(), line=1)) == "a mapping"
    assert len(describe(ScalarNode(text="x" * 500, plain=True, line=1))) < 70
