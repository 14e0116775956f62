"""Folders the driver fills: a declaration's workdir, copied once, and the trainer SDK on the job's path.

Both are made under a temporary name and renamed, under a lock file, so that ranks that start together and
control planes that die half-way neither see nor keep half a copy. Left out of a workdir: ``.git``,
``__pycache__``, virtual environments (a folder with ``pyvenv.cfg``), sockets, FIFOs, devices. What is copied
is what the digest of a workdir covers: both go through the same walk, with the same limits.

The SDK folder holds nothing but ``steersman_trainer``: to put the folder that it is installed in on the
job's path would show the job Steersman's own packages. It is copied and named by digest, so that a run keeps
the version it began with while Steersman is upgraded.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from steersman.hosting.files import DIR_MODE, flocked
from steersman.model.errors import DriverError
from steersman.ports import run_dir

WORKDIR_BYTES_MAX = 2 * 1024**3
WORKDIR_FILES_MAX = 100_000
SKIPPED = frozenset({".git", "__pycache__"})
SDK = "sdk"
SDK_PACKAGE = "steersman_trainer"


def place_workdir(home: Path, name: str, source: str | None) -> Path:
    """The declaration's working folder, copied from `source` (absolute) the first time.

    Raises DriverError when the source is missing, is not a folder, or is too large.
    """
    target = home / run_dir.WORKDIRS / name
    if target.is_dir():
        return target
    target.parent.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
    with flocked(target.with_name(f".{name}.lock")):
        if target.is_dir():
            return target
        partial = target.with_name(f".{name}.partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=DIR_MODE)
        try:
            if source is not None:
                _copy_tree(_checked(source, home), partial)
                os.sync()  # a workdir cut short by a power cut would pass for whole after the rename
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _checked(source: str, home: Path) -> Path:
    path = Path(source)
    hint = "give `workdir` as the absolute path of an existing folder"
    if not path.is_absolute():
        raise DriverError(f"the workdir {source!r} is not an absolute path", hint=hint)
    if not path.is_dir():
        raise DriverError(f"the workdir {source!r} is not a folder that exists", hint=hint)
    if home.resolve().is_relative_to(path.resolve()):
        raise DriverError(
            f"the workdir {source!r} contains Steersman's home {home}",
            hint="choose a folder of its own for the job, or another home with --home",
        )
    return path


def workdir_digest(source: Path) -> str:
    """``sha256:<hex>`` over what `place_workdir` would copy: names, contents, links, who may execute a file.

    Raises DriverError when it is too large, OSError when something in it cannot be read.
    """
    digest = hashlib.sha256()
    for entry in _entries(source):
        name = os.fsencode(entry.path.relative_to(source))
        digest.update(f"{entry.kind} {entry.size} {len(name)} ".encode() + name)
        if entry.kind == "link":
            target = os.fsencode(entry.path.readlink())
            digest.update(f"{len(target)} ".encode() + target)
        elif entry.kind in _FILES:
            with entry.path.open("rb") as file:
                # Of its own, so that a file that grows meanwhile cannot pass for another file.
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


class _Entry(NamedTuple):
    path: Path
    kind: str
    size: int


_FILES = frozenset({"file", "program"})


def _copy_tree(source: Path, target: Path) -> None:
    for entry in _entries(source):
        here = target / entry.path.relative_to(source)
        if entry.kind == "link":
            here.symlink_to(entry.path.readlink())
        elif entry.kind == "folder":
            here.mkdir(mode=DIR_MODE)
        else:
            shutil.copy2(entry.path, here)


def _entries(source: Path) -> Iterator[_Entry]:
    """Everything that belongs to a workdir, sorted, a folder before what is in it. Raises DriverError."""
    size, count = 0, 0
    for folder, folders, files in os.walk(source, onerror=_raise):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if _wanted(here / name))
        for name in (*folders, *sorted(files)):
            entry = _entry(here / name)
            if entry is None:
                continue
            size, count = size + entry.size, count + (entry.kind != "folder")
            if size > WORKDIR_BYTES_MAX or count > WORKDIR_FILES_MAX:
                raise DriverError(
                    f"the workdir {str(source)!r} is larger than {WORKDIR_BYTES_MAX // 1024**2} MiB "
                    f"or {WORKDIR_FILES_MAX} files",
                    hint="keep data out of the workdir and read it by its absolute path",
                )
            yield entry
        folders[:] = [name for name in folders if not (here / name).is_symlink()]


def _raise(error: OSError) -> None:
    """A folder that cannot be listed must not be left out in silence."""
    raise error


def _wanted(path: Path) -> bool:
    return path.name not in SKIPPED and not (path / "pyvenv.cfg").exists()


def _entry(path: Path) -> _Entry | None:
    """What stands there; None for what is left out."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return _Entry(path, "link", 0)
    if stat.S_ISDIR(status.st_mode):
        return _Entry(path, "folder", 0)
    if stat.S_ISREG(status.st_mode):
        kind = "program" if status.st_mode & stat.S_IXUSR else "file"
        return _Entry(path, kind, status.st_size)
    return None


def place_sdk(home: Path, package: Path) -> Path:
    """The folder for PYTHONPATH that holds only a copy of the trainer package. Raises DriverError."""
    files = sorted(path for path in package.rglob("*") if path.suffix != ".pyc" and path.is_file())
    if not files:
        raise DriverError(
            f"the trainer package {package} is empty or missing", hint="install Steersman again"
        )
    digest = hashlib.sha256()
    for path in files:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package)}\0{len(data)}\0".encode() + data)
    target = home / SDK / digest.hexdigest()[:16]
    if target.is_dir():
        return target
    target.parent.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
    with flocked(home / SDK / ".lock"):
        if not target.is_dir():
            partial = home / SDK / ".partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(
                package, partial / SDK_PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
            os.sync()  # as above
            partial.rename(target)
    return target
