"""A disk that loses power: what SQLite, the head anchor and the state images wrote, and what survives.

Fault model. Every file is an inode with durable bytes and a list of pending writes and truncations; every
folder operation (create, rename, remove) is pending until the folder is synced. `sync` of a file makes its
bytes durable, not its name. At the power cut each pending write is, by chance, lost, kept or torn: split
into 512-byte sectors of which a random subset survives, one in sixteen of those only in part. Later writes
may survive where earlier ones were lost. Pending folder operations survive as a random prefix or a random
subset. What is not modelled: a disk that acknowledges a sync it did not do, and bytes that rot.

SQLite comes in through `SimVfs`, whose files live here in memory; only locks and shared memory are on real,
empty files in a temporary folder. `SimDisk.files` is the same disk behind the journal's `Files` port.

The cut is an instant and not an exception: when the countdown of operations ends the survivors are fixed,
and whatever the process still does happens in a world that will not be found again.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import apsw

SECTOR_BYTES = 512
Fault = Callable[[str, str], None]
"""Called with (operation, file name) before each operation; raises to make it fail."""


class Inode:
    """One file's bytes: as the process sees them, as the platter has them, and what lies between."""

    def __init__(self, durable: bytes = b"") -> None:
        self.seen = bytearray(durable)
        self.durable = bytearray(durable)
        self.pending: list[tuple[int, bytes | None]] = []

    def write(self, data: bytes, offset: int) -> None:
        _put(self.seen, data, offset)
        self.pending.append((offset, bytes(data)))

    def truncate(self, size: int) -> None:
        _cut(self.seen, size)
        self.pending.append((size, None))

    def sync(self) -> None:
        self.durable = bytearray(self.seen)
        self.pending.clear()

    def survive(self, chance: random.Random) -> bytes:
        """The bytes found after a power cut."""
        found = bytearray(self.durable)
        keep = chance.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self.pending:
            if data is None:
                if chance.random() < keep:
                    _cut(found, offset)
            elif chance.random() < 0.5:
                if chance.random() < keep:
                    _put(found, data, offset)
            else:
                _tear(found, data, offset, keep, chance)
        return bytes(found)


def _tear(found: bytearray, data: bytes, offset: int, keep: float, chance: random.Random) -> None:
    start = 0
    while start < len(data):
        size = min(SECTOR_BYTES - (offset + start) % SECTOR_BYTES, len(data) - start)
        if chance.random() < keep:
            part = size if chance.random() < 15 / 16 else chance.randrange(size)
            _put(found, data[start : start + part], offset + start)
        start += size


def _put(target: bytearray, data: bytes, offset: int) -> None:
    end = offset + len(data)
    if len(target) < end:
        target.extend(bytes(end - len(target)))
    target[offset:end] = data


def _cut(target: bytearray, size: int) -> None:
    if len(target) > size:
        del target[size:]
    else:
        target.extend(bytes(size - len(target)))


Names = dict[str, Inode]


class SimDisk:
    """Files by absolute path. `cut_after(n)` sets the power cut before the n-th operation from now."""

    def __init__(self, chance: random.Random, contents: dict[str, bytes] | None = None) -> None:
        self.chance = chance
        self.names: Names = {name: Inode(data) for name, data in (contents or {}).items()}
        self.durable_names: Names = dict(self.names)
        self.pending_names: list[tuple[str, Inode | None]] = []
        self.survivors: dict[str, bytes] | None = None
        self.operations = 0
        self.fault: Fault | None = None
        self._left: int | None = None
        self.files = SimFiles(self)

    @property
    def dead(self) -> bool:
        return self.survivors is not None

    def cut_after(self, operations: int) -> None:
        self._left = operations

    def step(self, operation: str, name: str) -> None:
        """Count an operation, fail it if a fault says so, and cut the power if it is time."""
        self.operations += 1
        if self.fault is not None:
            self.fault(operation, Path(name).name)
        if self._left is not None and not self.dead:
            self._left -= 1
            if self._left <= 0:
                self.cut()

    def cut(self) -> None:
        """Fix what would be found after a power cut now."""
        found = dict(self.durable_names)
        pending = self.pending_names
        if self.chance.random() < 0.5:
            pending = pending[: self.chance.randint(0, len(pending))]
        else:
            pending = [change for change in pending if self.chance.random() < 0.5]
        for name, inode in pending:
            _rename_one(found, name, inode)
        self.survivors = {name: inode.survive(self.chance) for name, inode in sorted(found.items())}

    def rebooted(self) -> "SimDisk":
        """The disk as it is found after the cut."""
        assert self.survivors is not None
        return SimDisk(self.chance, self.survivors)

    def lookup(self, name: str, *, create: bool) -> Inode:
        inode = self.names.get(name)
        if inode is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", name)
            inode = Inode()
            self.change_name(name, inode)
        return inode

    def change_name(self, name: str, inode: Inode | None) -> None:
        _rename_one(self.names, name, inode)
        self.pending_names.append((name, inode))

    def sync_names(self) -> None:
        self.durable_names = dict(self.names)
        self.pending_names.clear()


def _rename_one(names: Names, name: str, inode: Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


class SimOpenFile:
    """A file of the `Files` port on the simulated disk."""

    def __init__(self, disk: SimDisk, name: str, inode: Inode) -> None:
        self._disk, self._name, self._inode = disk, name, inode

    def write_at(self, data: bytes, offset: int) -> None:
        self._disk.step("write", self._name)
        self._inode.write(data, offset)

    def sync(self) -> None:
        self._disk.step("sync", self._name)
        self._inode.sync()

    def close(self) -> None:
        pass


class SimFiles:
    """The `Files` port on the simulated disk."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk

    def size(self, path: Path) -> int | None:
        inode = self._disk.names.get(str(path))
        return None if inode is None else len(inode.seen)

    def read(self, path: Path) -> bytes | None:
        self._disk.step("read", str(path))
        inode = self._disk.names.get(str(path))
        return None if inode is None else bytes(inode.seen)

    def names(self, folder: Path) -> list[str]:
        return sorted(Path(name).name for name in self._disk.names if Path(name).parent == folder)

    def open(self, path: Path, *, create: bool) -> SimOpenFile:
        self._disk.step("open", str(path))
        inode = self._disk.lookup(str(path), create=create)
        if create and inode.seen:
            inode.truncate(0)
        return SimOpenFile(self._disk, str(path), inode)

    def rename(self, old: Path, new: Path) -> None:
        self._disk.step("rename", str(old))
        inode = self._disk.lookup(str(old), create=False)
        self._disk.change_name(str(new), inode)
        self._disk.change_name(str(old), None)

    def remove(self, path: Path) -> None:
        self._disk.step("remove", str(path))
        if str(path) in self._disk.names:
            self._disk.change_name(str(path), None)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # a real one, for SQLite's locks

    def sync_folder(self, folder: Path) -> None:
        self._disk.step("sync", str(folder))
        self._disk.sync_names()


class SimVfsFile(apsw.VFSFile):
    """SQLite's view of one file. Locks and shared memory go to a real, empty file of the same name."""

    def __init__(self, disk: SimDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk = disk
        log = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        create = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        # As SQLite's unix layer does: the first sync of a log also syncs its folder.
        self._sync_folder = bool(flags[0] & log) and create
        self._inode = disk.lookup(self._name, create=create)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 (SQLite's name)
        return bytes(self._inode.seen[offset : offset + amount])

    def xWrite(self, data: object, offset: int) -> None:  # noqa: N802 (SQLite's name)
        self._disk.step("write", self._name)
        self._inode.write(bytes(data), offset)  # type: ignore[call-overload] # apsw gives a buffer

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 (SQLite's name)
        self._disk.step("truncate", self._name)
        self._inode.truncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 (SQLite's name)
        self._disk.step("sync", self._name)
        self._inode.sync()
        if self._sync_folder:
            self._disk.sync_names()
            self._sync_folder = False

    def xFileSize(self) -> int:  # noqa: N802 (SQLite's name)
        return len(self._inode.seen)


class SimVfs(apsw.VFS):
    """An SQLite VFS over whichever simulated disk is in it now. Close it to unregister."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk = SimDisk(random.Random(0))
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> SimVfsFile:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.disk.step("open", path)
        if path not in self.disk.names and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.CantOpenError(f"no such file: {path}")
        Path(path).touch()
        return SimVfsFile(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 (SQLite's name)
        self.disk.step("remove", filename)
        Path(filename).unlink(missing_ok=True)
        self.disk.change_name(filename, None)
        if syncdir:
            self.disk.sync_names()

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802 (SQLite's name)
        return pathname in self.disk.names
