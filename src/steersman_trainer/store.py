"""A folder of checkpoints in which a name never points to half a checkpoint.

Publishing: make ``.tmp-…`` and lock it (flock: proof that its writer lives, free of pid reuse), let the
script write there, fsync and digest every file, write and fsync the manifest, fsync the folder, rename it to
``step-<12 digits>``, fsync the parent. A crash at any point leaves the older checkpoints and at most one
unlocked ``.tmp-…``, which the next writer removes.

Reading: newest first, and only after manifest, sizes and digests were found to be right. A checkpoint that is
wrong is skipped with its reason and never deleted for that alone, for what cannot be read now may be readable
elsewhere.

Retention: the newest N valid ones stay, and always the one just published. What goes is renamed to a
temporary name first, so that a crash amid the deletion leaves no half checkpoint either.

A store has one writer at a time (rank 0 of the one live run of a declaration).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steersman_trainer.errors import CheckpointError, TrainerError
from steersman_trainer.files import fsync_folder, write_durably
from steersman_trainer.manifest import (
    FILES_MAX,
    MANIFEST_BYTES_MAX,
    FileEntry,
    Manifest,
    ManifestError,
    encode_manifest,
    name_problem,
    parse_manifest,
)
from steersman_trainer.names import CHECKPOINT_DIGITS, CHECKPOINT_PREFIX, MANIFEST

TEMPORARY_PREFIX = ".tmp-"
CHUNK_BYTES = 1024 * 1024

_PUBLISHED = re.compile(rf"{re.escape(CHECKPOINT_PREFIX)}[0-9]{{{CHECKPOINT_DIGITS}}}")


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was not loaded, and why."""

    path: Path
    reason: str


class CheckpointStore:
    """One checkpoint folder. `keep` is how many valid checkpoints stay."""

    def __init__(self, folder: Path, *, run_id: str, keep: int) -> None:
        self.folder = folder
        self._run_id = run_id
        self._keep = keep
        self._bad: set[str] = set()

    def remove_leftovers(self) -> list[Path]:
        """Delete what dead writers left; a temporary folder whose writer lives is not touched."""
        removed = []
        for path in self._matching(lambda name: name.startswith(TEMPORARY_PREFIX)):
            with _try_lock(path) as mine:
                if mine:
                    shutil.rmtree(path, ignore_errors=True)
                    removed.append(path)
        return removed

    def newest_valid(self) -> tuple[tuple[int, Path] | None, list[Skipped]]:
        """The newest checkpoint of which every byte is right, as (step, folder), and those passed over."""
        skipped: list[Skipped] = []
        for path in self._published():
            reason = problem(path)
            if not reason:
                return (_step_of(path), path), skipped
            self._bad.add(path.name)
            skipped.append(Skipped(path, reason))
        return None, skipped

    def publish(self, step: int, write: Callable[[Path], object]) -> bool:
        """Save one checkpoint; False when this step has a valid one already, and then `write` is not called.

        Raises CheckpointError when the disk refuses and TrainerError when `write` left what cannot be kept;
        what `write` itself raises, other than OSError, passes through. After any of them no trace of the
        attempt is left.
        """
        final = self.folder / f"{CHECKPOINT_PREFIX}{step:0{CHECKPOINT_DIGITS}}"
        if os.path.lexists(final) and not problem(final):
            self._bad.discard(final.name)
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._temporary(step) as temporary:
                self._fill(temporary, step, write)
                if os.path.lexists(final):
                    self._delete(final)
                temporary.rename(final)
            fsync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} could not be saved in {self.folder}: {error}",
                hint="free space or repair the folder; checkpoints saved earlier are as they were",
            ) from error
        self._bad.discard(final.name)
        self._retain(final)
        return True

    def _fill(self, temporary: Path, step: int, write: Callable[[Path], object]) -> None:
        began = time.monotonic()
        write(temporary)
        files = _seal(temporary)
        manifest = Manifest(
            step=step,
            at_ms=time.time_ns() // 1_000_000,
            save_ms=round((time.monotonic() - began) * 1000),
            run=self._run_id,
            files=files,
        )
        write_durably(temporary / MANIFEST, encode_manifest(manifest))
        fsync_folder(temporary)

    @contextmanager
    def _temporary(self, step: int) -> Iterator[Path]:
        name = f"{TEMPORARY_PREFIX}{step:0{CHECKPOINT_DIGITS}}-{os.getpid()}-{time.monotonic_ns()}"
        path = self.folder / name
        path.mkdir()
        try:
            with _try_lock(path):
                yield path
        finally:
            # Renamed by now when all went well. Whatever ended it, Ctrl-C included, nothing stays behind.
            shutil.rmtree(path, ignore_errors=True)

    def _retain(self, newest: Path) -> None:
        kept = {newest.name}
        for path in self._published():
            if path.name in kept:
                continue
            if path.name > newest.name:
                continue  # of a later step than this run has reached: not this run's to delete
            if len(kept) < self._keep and path.name not in self._bad and not problem(path, digests=False):
                kept.add(path.name)
            elif len(kept) >= self._keep:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        grave = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{time.monotonic_ns()}")
        try:
            path.rename(grave)
        except OSError:
            return  # it stays, whole; the next publication tries again
        shutil.rmtree(grave, ignore_errors=True)

    def _published(self) -> list[Path]:
        """Published checkpoints, newest first. The fixed width makes the order of names that of steps."""
        return self._matching(lambda name: _PUBLISHED.fullmatch(name) is not None)[::-1]

    def _matching(self, wanted: Callable[[str], bool]) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if wanted(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint folder {self.folder} cannot be read: {error}",
                hint="repair it or its permissions; starting anew beside it would lose the work in it",
            ) from error


def problem(path: Path, *, digests: bool = True) -> str:
    """Why a published checkpoint cannot be trusted, or nothing. With `digests` every byte of it is read."""
    try:
        manifest = _manifest_of(path)
        for name, entry in manifest.files.items():
            _check_size(path, name, entry)
            if digests and _digest(path / name) != entry.sha256:
                return f"the digest of {name} differs from the manifest's"
    except (ManifestError, OSError) as error:
        return str(error)
    return ""


def _manifest_of(path: Path) -> Manifest:
    source = path / MANIFEST
    if not stat.S_ISREG(source.lstat().st_mode):
        raise ManifestError(f"{MANIFEST} is not a regular file")
    with source.open("rb") as file:
        content = file.read(MANIFEST_BYTES_MAX + 1)
    try:
        manifest = parse_manifest(content)
    except ManifestError as error:
        raise ManifestError(f"{MANIFEST}: {error}") from None
    if manifest.step != _step_of(path):
        raise ManifestError(f"{MANIFEST}: it is of step {manifest.step}")
    return manifest


def _check_size(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    # A symbolic link anywhere on the way could lead out of the checkpoint.
    if os.path.realpath(file) != os.path.join(os.path.realpath(path), *name.split("/")):  # noqa: PTH118 - realpath gives text
        raise ManifestError(f"{name} leads out of the checkpoint")
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ManifestError(f"{name} is not a regular file")
    if found.st_size != entry.size:
        raise ManifestError(f"{name} has {found.st_size} bytes, and the manifest says {entry.size}")


def _seal(folder: Path) -> dict[str, FileEntry]:
    """Make everything under a folder durable; returns its files. Raises OSError or TrainerError."""
    files: dict[str, FileEntry] = {}
    for parent, folders, leaves in os.walk(folder, topdown=False, onerror=_raise, followlinks=False):
        here = Path(parent)
        # os.walk lists a link to a folder among the folders and does not enter it: as a leaf it is refused.
        links = [name for name in folders if (here / name).is_symlink()]
        for leaf in sorted(leaves + links):
            name = (here / leaf).relative_to(folder).as_posix()
            files[name] = _seal_file(here / leaf, name)
        fsync_folder(here)
    if not 0 < len(files) <= FILES_MAX:
        raise _bad_write(f"{len(files)} files, and 1 to {FILES_MAX} can be kept")
    return files


def _seal_file(path: Path, name: str) -> FileEntry:
    trouble = name_problem(name)
    if not trouble and not stat.S_ISREG(path.lstat().st_mode):
        trouble = f"{name} is not a regular file"
    if trouble:
        raise _bad_write(f"what cannot be kept: {trouble}")
    digest = _digest(path, sync=True)
    return FileEntry(sha256=digest, size=path.stat().st_size)


def _bad_write(found: str) -> TrainerError:
    return TrainerError(
        f"the function given to checkpoint() left {found}",
        hint="write the state as plain files into the folder the function is called with",
    )


def _digest(path: Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _try_lock(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock; False when another process holds it or nobody can tell."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def _step_of(path: Path) -> int:
    return int(path.name[len(CHECKPOINT_PREFIX) :])


def _raise(error: OSError) -> None:
    raise error
