"""State images: one file each, disposable, never trusted beyond their checksum and the chain.

Replaying a million events takes seconds; an image of the state lets a start skip what it covers. An image
names the build that made it, the position it was taken at and the chain's digest there, so that an image
of another history (a restored backup, another home) or of another build is never returned. Images are
files beside the database and not rows in it: tens of megabytes would go twice through the write-ahead log
and hold up every append behind them.

`images/<position, 20 digits>-<16 hex of the build's SHA-256>.image`: magic, checksum of the rest, build,
position, digest, image. The newest `IMAGES_KEPT` at or before the head stay.
"""

import contextlib
import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path

from steersman.journal.files import Files, write_whole
from steersman.model.errors import JournalWriteError
from steersman.ports.journal import Head

IMAGES_FOLDER = "images"
IMAGES_KEPT = 2
IMAGE_BYTES_MAX = 4 * 1024**3
"""Bytes of one image; far above any fleet this build can hold."""

_MAGIC = b"STEERIM1"
_FIELDS = struct.Struct(">Q32sI")
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})\.image")


def _file_name(position: int, build: str) -> str:
    return f"{position:020d}-{hashlib.sha256(build.encode()).hexdigest()[:16]}.image"


class ImageFiles:
    """The images of one home."""

    def __init__(self, files: Files, home: Path) -> None:
        self._files = files
        self._folder = home / IMAGES_FOLDER

    def save(self, at: Head, build: str, image: bytes) -> None:
        """Keep an image taken at a head. Raises JournalWriteError; then the older images still stand."""
        if len(image) > IMAGE_BYTES_MAX:
            raise JournalWriteError(
                f"a state image of {len(image)} bytes is larger than the home takes ({IMAGE_BYTES_MAX})",
                hint="starts will replay more of the journal",
            )
        fields = _FIELDS.pack(at.position, at.digest, len(build.encode())) + build.encode()
        checksum = hashlib.sha256(fields)
        checksum.update(image)
        name = _file_name(at.position, build)
        try:
            self._files.make_folder(self._folder)
            write_whole(self._files, self._folder / name, [_MAGIC + checksum.digest() + fields, image])
            self._prune(at.position, name)
        except OSError as error:
            raise JournalWriteError(
                f"a state image could not be written: {error.strerror}",
                hint="nothing is lost; the next start takes longer. Free space in the home",
            ) from error

    def load(
        self, build: str, head: Head, digest_at: Callable[[int], bytes | None]
    ) -> tuple[int, bytes] | None:
        """The newest intact image of a build at or before the head, from this history."""
        for position, name in self._newest_first():
            if position > head.position or name != _file_name(position, build):
                continue
            image = self._read(name, build, position, digest_at)
            if image is not None:
                return position, image
        return None

    def _read(
        self, name: str, build: str, position: int, digest_at: Callable[[int], bytes | None]
    ) -> bytes | None:
        try:
            data = self._files.read(self._folder / name)
        except OSError:  # unreadable is as good as absent: an image is a cache
            return None
        digest = digest_at(position)
        if data is None or digest is None:
            return None
        fields = _FIELDS.pack(position, digest, len(build.encode())) + build.encode()
        start = len(_MAGIC) + 32
        view = memoryview(data)
        intact = (
            view[: len(_MAGIC)] == _MAGIC
            and view[start : start + len(fields)] == fields
            and hashlib.sha256(view[start:]).digest() == view[len(_MAGIC) : start]
        )
        return bytes(view[start + len(fields) :]) if intact else None

    def _newest_first(self) -> list[tuple[int, str]]:
        try:
            names = self._files.names(self._folder)
        except OSError:  # as above
            return []
        matches = (_NAME.fullmatch(name) for name in names)
        return sorted(((int(match[1]), match[0]) for match in matches if match), reverse=True)

    def _prune(self, newest_position: int, newest_name: str) -> None:
        """Drop all but the newest. An image from beyond this one is not of this history."""
        older = [
            name
            for position, name in self._newest_first()
            if position <= newest_position and name != newest_name
        ]
        keep = {newest_name, *older[: IMAGES_KEPT - 1]}
        for name in self._files.names(self._folder):
            if name not in keep:
                with contextlib.suppress(OSError):  # it costs space only, and the next save tries again
                    self._files.remove(self._folder / name)
