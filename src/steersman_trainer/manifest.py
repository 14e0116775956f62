"""The manifest of a checkpoint: what was saved, so that a reader can tell whether it still is.

``manifest.json`` is a JSON object {"format": 1, "step", "at_ms", "save_ms", "run", "files": {name: {"sha256",
"size"}}}. A name is a path relative to the checkpoint's folder with ``/`` between parts. Parsing believes
nothing: a manifest that is not exactly such an object is refused with the reason, whatever its bytes are.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass

from steersman_trainer.names import CHECKPOINT_DIGITS, MANIFEST

FORMAT = 1
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
FILES_MAX = 100_000
NAME_CHARACTERS_MAX = 1_024
STEP_MAX = 10**CHECKPOINT_DIGITS - 1
SIZE_BYTES_MAX = 2**63 - 1
TIME_MS_MAX = 2**63 - 1
SHA256_HEX_LENGTH = 64

_FIELDS = {"format", "step", "at_ms", "save_ms", "run", "files"}
_HEX = frozenset(string.hexdigits.lower())


class ManifestError(ValueError):
    """The bytes are not a manifest; the message says why."""


@dataclass(frozen=True)
class FileEntry:
    """`sha256` is lower-case hexadecimal, `size` is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """`at_ms` is when it was saved (epoch), `save_ms` how long writing and syncing the files took."""

    step: int
    at_ms: int
    save_ms: int
    run: str
    files: Mapping[str, FileEntry]


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest; equal manifests give equal bytes."""
    body = {
        "format": FORMAT,
        "step": manifest.step,
        "at_ms": manifest.at_ms,
        "save_ms": manifest.save_ms,
        "run": manifest.run,
        "files": {
            name: {"sha256": entry.sha256, "size": entry.size} for name, entry in manifest.files.items()
        },
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in some bytes. Raises ManifestError, and nothing else, on any other content."""
    if len(content) > MANIFEST_BYTES_MAX:
        raise ManifestError(f"larger than {MANIFEST_BYTES_MAX} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON ({type(error).__name__})") from None
    if not isinstance(body, dict) or set(body) != _FIELDS:
        raise ManifestError(f"not an object with exactly the fields {', '.join(sorted(_FIELDS))}")
    if _whole(body, "format", TIME_MS_MAX) != FORMAT:
        raise ManifestError(f"format {body['format']}, and only {FORMAT} is known")
    if not isinstance(body["run"], str):
        raise ManifestError("run is not text")
    return Manifest(
        step=_whole(body, "step", STEP_MAX),
        at_ms=_whole(body, "at_ms", TIME_MS_MAX),
        save_ms=_whole(body, "save_ms", TIME_MS_MAX),
        run=body["run"],
        files=_files(body["files"]),
    )


def name_problem(name: str) -> str:
    """Why a name cannot stand in a manifest, or nothing. A good one stays inside the folder."""
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        return f"a file name is empty or longer than {NAME_CHARACTERS_MAX} characters"
    if "\0" in name or not name.isprintable():
        return f"the file name {name!r} has unprintable characters"
    if any(part in {"", ".", ".."} for part in name.split("/")):
        return f"the file name {name!r} is not a plain relative path"
    if name == MANIFEST:
        return f"the name {MANIFEST} is taken by the manifest itself"
    return ""


def _whole(body: Mapping[str, object], field: str, most: int) -> int:
    value = body.get(field)
    # type, not isinstance: True is an int to Python and none to a reader.
    if type(value) is not int or not 0 <= value <= most:
        raise ManifestError(f"{field} is not a whole number from 0 to {most}")
    return value


def _files(value: object) -> Mapping[str, FileEntry]:
    if not isinstance(value, dict) or not 0 < len(value) <= FILES_MAX:
        raise ManifestError(f"files is not an object of 1 to {FILES_MAX} entries")
    return {name: _entry(name, entry) for name, entry in sorted(value.items())}


def _entry(name: str, value: object) -> FileEntry:
    problem = name_problem(name)
    if problem:
        raise ManifestError(problem)
    if not isinstance(value, dict) or set(value) != {"sha256", "size"}:
        raise ManifestError(f"the entry of {name!r} is not an object with exactly sha256 and size")
    digest = value["sha256"]
    if not isinstance(digest, str) or len(digest) != SHA256_HEX_LENGTH or not _HEX.issuperset(digest):
        raise ManifestError(
            f"the sha256 of {name!r} is not {SHA256_HEX_LENGTH} lower-case hexadecimal digits"
        )
    return FileEntry(sha256=digest, size=_whole(value, "size", SIZE_BYTES_MAX))
