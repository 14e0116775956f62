"""Moving files between the control plane's home and a node: through the host's actor, a piece at a time."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from steersman.dataplane.cluster.host import WORKDIR_TAR, digest_of, pack
from steersman.dataplane.cluster.mirror import Mirror, pieces
from steersman.dataplane.cluster.words import CHUNK_BYTES

WINDOW = 8
"""Pieces under way at one time."""

Ask = Callable[..., Awaitable[Any]]
"""`ask(verb, *arguments)` of one host. Raises DriverError."""


async def send(ask: Ask, path: Path, kind: str, name: str) -> None:
    """Put a file on the host's node, if it is not there. Raises DriverError, OSError."""
    if await ask("has", kind, name):
        return
    digest = await asyncio.to_thread(digest_of, path)
    size = os.stat(path).st_size  # noqa: PTH116 - an instant, and what is read next blocks as long
    token = f"{os.getpid()}.{digest}"
    with path.open("rb") as file:
        for offsets in _windows(size):
            await asyncio.gather(*[ask("put", token, offset, file.read(CHUNK_BYTES)) for offset in offsets])
    await ask("place", token, kind, name, digest)


async def send_checkpoint(ask: Ask, mirror: Mirror, lineage: str) -> None:
    """Put the newest checkpoint of a rank's lineage on the host's node. Raises DriverError, OSError."""
    step, folder = mirror.newest_checkpoint(), mirror.checkpoint_folder
    if not step or folder is None or await ask("has", "checkpoint", f"{lineage}/{step}"):
        return
    archive = mirror.incoming(f"out-{step}")
    await asyncio.to_thread(pack, folder / step, archive)
    try:
        await send(ask, archive, "checkpoint", f"{lineage}/{step}")
    finally:
        archive.unlink(missing_ok=True)


async def fetch(ask: Ask, kind: str, name: str, into: Path) -> None:
    """Get a file from the host's node. Raises DriverError, OSError."""
    size = await ask("size", kind, name)
    with into.open("wb") as file:
        for offsets in _windows(size):
            file.writelines(await asyncio.gather(*[ask("get", kind, name, offset) for offset in offsets]))
        file.flush()
        os.fsync(file.fileno())
    await ask("sent", kind, name)


def _windows(size_bytes: int) -> Iterator[Sequence[int]]:
    """Offsets of pieces that are under way at one time; the first piece alone, for it makes the file."""
    offsets = pieces(size_bytes, CHUNK_BYTES)
    yield offsets[:1]
    for at in range(1, len(offsets), WINDOW):
        yield offsets[at : at + WINDOW]


def workdir_package(folder: Path) -> bytes:
    """A working folder as the engine carries it: an archive in a zip, for a zip keeps neither links nor
    modes.

    The same content gives the same bytes. Raises OSError.
    """
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, arcname=str(path.relative_to(folder)))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            if entry.isfile():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(zipfile.ZipInfo(WORKDIR_TAR), inner.getvalue(), zipfile.ZIP_DEFLATED)
    return outer.getvalue()
