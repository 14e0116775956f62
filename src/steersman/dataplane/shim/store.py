"""Artifacts into the content store, by a process of its own.

The shim runs this file once the program of rank 0 has ended well: its memory (a hash library, a buffer)
lives only that long, and it works without the control plane. Bytes are copied, not linked, for the file in
the output folder could still be changed by its owner. The name is the digest, so storing twice is harmless
and a half-made file is never seen under a name.

Reads a request as JSON on standard input: {"output", "store", "artifacts": [[name, path]]}; answers with
{"artifacts": [{"name", "digest", "size_bytes"}], "problems": [text]}.
"""

# ruff: noqa: PTH103, PTH104, PTH108, PTH118, PTH123 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import hashlib
import json
import os
import stat
import sys
from typing import Any

CHUNK_BYTES = 1024 * 1024
REQUEST_BYTES_MAX = 16 * 1024 * 1024


def store_all(request: dict[str, Any]) -> dict[str, Any]:
    """Store what is declared; what is missing is told."""
    stored: list[dict[str, Any]] = []
    problems: list[str] = []
    for name, path in request["artifacts"]:
        try:
            digest, size = store_file(request["output"], path, request["store"])
        except OSError as failure:
            problems.append(f"artifact {name!r} ({path}): {failure.strerror or failure}")
        else:
            stored.append({"name": name, "digest": f"sha256:{digest}", "size_bytes": size})
    return {"artifacts": stored, "problems": problems}


def store_file(output: str, path: str, store: str) -> tuple[str, int]:
    """Copy one file below `output` into the store; its digest in hex and its size. Raises OSError."""
    root = os.path.realpath(output)
    source = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, source]) != root:
        raise OSError(0, "it lies outside of the output folder")
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    temporary = os.path.join(store, f".{os.getpid()}.tmp")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        os.makedirs(store, mode=0o700, exist_ok=True)
        digest, size = _copy(descriptor, temporary)
        os.rename(temporary, os.path.join(store, digest))
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest, size


def _copy(source: int, temporary: str) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(temporary, "wb", buffering=0) as target:
        os.fchmod(target.fileno(), 0o400)
        while chunk := os.read(source, CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[target.write(view) :]
        os.fsync(target.fileno())
    return digest.hexdigest(), size


def main() -> None:
    """Answer one request."""
    json.dump(store_all(json.loads(sys.stdin.buffer.read(REQUEST_BYTES_MAX))), sys.stdout)


if __name__ == "__main__":
    main()
