"""A manifest that is not exactly one is refused with a reason, whatever its bytes; a good one survives."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman_trainer.manifest import (
    FILES_MAX,
    MANIFEST_BYTES_MAX,
    STEP_MAX,
    FileEntry,
    Manifest,
    ManifestError,
    encode_manifest,
    name_problem,
    parse_manifest,
)

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.text(min_size=1, max_size=30).filter(lambda name: not name_problem(name))
MANIFESTS = st.builds(
    Manifest,
    step=st.integers(0, STEP_MAX),
    at_ms=st.integers(0, 2**62),
    save_ms=st.integers(0, 2**40),
    run=st.text(max_size=20),
    files=st.dictionaries(
        NAMES, st.builds(FileEntry, sha256=DIGESTS, size=st.integers(0, 2**62)), min_size=1
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("format", "step", "at_ms", "save_ms", "run", "files")


def good() -> dict[str, Any]:
    files = {"weights.npz": {"sha256": "a" * 64, "size": 3}}
    return {"format": 1, "step": 7, "at_ms": 1, "save_ms": 2, "run": "r.1", "files": files}


def refused(body: object) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(json.dumps(body).encode())
    assert str(caught.value)
    return str(caught.value)


@given(MANIFESTS)
def test_what_is_encoded_is_parsed_back(manifest: Manifest) -> None:
    assert parse_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_never_crash(content: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(content)


@given(JSON)
def test_any_other_json_is_refused(value: object) -> None:
    refused(value)


@given(st.sampled_from(FIELDS), JSON)
def test_a_field_of_another_type_is_refused(field: str, value: object) -> None:
    body = good()
    body[field] = value
    if field == "run" and isinstance(value, str):
        return
    if type(value) is int and value >= 0 and field in {"at_ms", "save_ms", "step"}:
        return
    if field == "format" and type(value) is int and value == 1:
        return
    refused(body)


@given(MANIFESTS, st.data())
def test_a_cut_manifest_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    content = encode_manifest(manifest)
    with pytest.raises(ManifestError):
        parse_manifest(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_refused(field: str) -> None:
    body = good()
    del body[field]
    assert "exactly the fields" in refused(body)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        ("a" * 1025, "longer"),
        ("/etc/passwd", "relative"),
        ("../weights", "relative"),
        ("a/../../b", "relative"),
        ("./a", "relative"),
        ("a//b", "relative"),
        ("a/", "relative"),
        ("a\0b", "unprintable"),
        ("a\nb", "unprintable"),
        ("a\ud800b", "unprintable"),
        ("manifest.json", "taken"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, words: str) -> None:
    body = good()
    body["files"] = {name: body["files"]["weights.npz"]}
    assert words in refused(body)


@pytest.mark.parametrize(
    "name", ["weights.npz", "a b", "deep/er/x", "modèle.bin", "sub/manifest.json", "..x"]
)
def test_a_plain_name_is_taken(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"sha256": "a" * 64},
        {"sha256": "a" * 64, "size": 1, "more": 1},
        {"sha256": "A" * 64, "size": 1},
        {"sha256": "a" * 63, "size": 1},
        {"sha256": 5, "size": 1},
        {"sha256": "a" * 64, "size": -1},
        {"sha256": "a" * 64, "size": True},
        {"sha256": "a" * 64, "size": 1.0},
    ],
)
def test_a_wrong_entry_is_refused(entry: object) -> None:
    body = good()
    body["files"] = {"weights.npz": entry}
    refused(body)


def test_more_than_the_limits_is_refused() -> None:
    with pytest.raises(ManifestError, match="larger"):
        parse_manifest(b" " * (MANIFEST_BYTES_MAX + 1))
    assert "100000 entries" in refused(good() | {"files": {}})
    assert "100000 entries" in refused(good() | {"files": dict.fromkeys(map(str, range(FILES_MAX + 1)))})
    assert "format 2" in refused(good() | {"format": 2})


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"format": ' + b"9" * 10_000 + b"}", b"\xff\xfe", b""])
def test_hostile_json_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError, match="not JSON"):
        parse_manifest(content)
