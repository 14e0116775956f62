"""Which checkpoints a declaration has, and which run published each.

A published checkpoint does not change, so its manifest is read once; a folder is listed again only when its
time of change is another.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from steersman.hosting.records import JSON_BYTES_MAX, Manifest
from steersman.ports import run_dir
from steersman.ports.driver import CheckpointReport

REPORTED_MAX = 16
NAME = re.compile(rf"{run_dir.CHECKPOINT_PREFIX}[0-9]{{{run_dir.CHECKPOINT_DIGITS}}}")


class Published(NamedTuple):
    run: str
    report: CheckpointReport


class Checkpoints:
    """Reads checkpoint folders; remembers what cannot have changed."""

    def __init__(self) -> None:
        self._listed: dict[Path, tuple[int, tuple[Published, ...]]] = {}
        self._read: dict[Path, dict[tuple[str, int, int], Published | None]] = {}

    def published_by(self, folder: Path, run: str) -> tuple[CheckpointReport, ...]:
        """The newest checkpoints of one run in a folder, oldest first. Raises OSError."""
        try:
            changed_at = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        listed = self._listed.get(folder)
        if listed is None or listed[0] != changed_at:
            listed = self._listed[folder] = (changed_at, self._list(folder))
        return tuple(found.report for found in listed[1] if found.run == run)[-REPORTED_MAX:]

    def _list(self, folder: Path) -> tuple[Published, ...]:
        before, now = self._read.get(folder, {}), {}
        for name in sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name)):
            manifest = folder / name / run_dir.MANIFEST
            try:
                status = manifest.stat()
            except OSError:
                continue  # being removed by retention
            identity = (name, status.st_ino, status.st_mtime_ns)
            now[identity] = before[identity] if identity in before else _read(manifest)
        self._read[folder] = now
        return tuple(found for found in now.values() if found is not None)


def _read(path: Path) -> Published | None:
    """One manifest, or None when it is damaged: the trainer falls back to an older one, and so do we."""
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX)
        manifest = msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    digest = hashlib.sha256(data).hexdigest()
    return Published(
        manifest.run,
        CheckpointReport(
            step=manifest.step, at_ms=manifest.at_ms, save_ms=manifest.save_ms, digest=f"sha256:{digest}"
        ),
    )
