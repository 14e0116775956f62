"""The head anchor: two slots, one of which is always whole."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.journal_disk import SimDisk

from steersman.journal.anchor import ANCHOR_NAME, READ_TRIES, Anchor, decode_anchor, read_anchor
from steersman.journal.chain import EMPTY_HEAD
from steersman.journal.files import OsFiles, write_whole
from steersman.model.errors import JournalCorrupt
from steersman.ports.journal import Head


def _head(position: int) -> Head:
    return Head(position=position, digest=bytes([position % 256]) * 32)


def test_the_anchor_holds_what_was_written_last(tmp_path: Path) -> None:
    files = OsFiles()
    assert read_anchor(files, tmp_path) is None
    anchor = Anchor.create(files, tmp_path, EMPTY_HEAD)
    for position in range(1, 6):
        anchor.write(_head(position))
        state = read_anchor(files, tmp_path)
        assert state is not None
        assert state.head == anchor.head == _head(position)
    anchor.close()
    assert (tmp_path / ANCHOR_NAME).stat().st_size == 8_192
    assert [path.name for path in tmp_path.iterdir()] == [ANCHOR_NAME]


@given(writes=st.integers(0, 4), seed=st.integers(0, 2**32), resumed=st.booleans())
def test_a_torn_write_leaves_the_former_head(writes: int, seed: int, resumed: bool) -> None:
    disk = SimDisk(random.Random(seed))
    folder = Path("/home-of-the-test")
    anchor = Anchor.create(disk.files, folder, EMPTY_HEAD)
    for position in range(1, writes + 1):
        anchor.write(_head(position))
    if resumed:
        state = read_anchor(disk.files, folder)
        assert state is not None
        anchor = Anchor.resume(disk.files, folder, state)
    disk.cut_after(2)  # before the sync: the write is lost, torn or kept
    anchor.write(_head(writes + 1))
    assert disk.survivors is not None
    found = decode_anchor(disk.survivors[str(folder / ANCHOR_NAME)])
    assert found is not None
    assert found.head in (_head(writes + 1), _head(writes) if writes else EMPTY_HEAD)


def test_a_slot_that_failed_is_written_again_before_the_other() -> None:
    disk = SimDisk(random.Random(1))
    folder = Path("/home-of-the-test")
    anchor = Anchor.create(disk.files, folder, EMPTY_HEAD)
    anchor.write(_head(1))

    def fail_sync(operation: str, name: str) -> None:
        if operation == "sync":
            raise OSError("planted")

    disk.fault = fail_sync
    for position in (2, 3, 4):
        with pytest.raises(OSError, match="planted"):
            anchor.write(_head(position))
    found = decode_anchor(bytes(disk.names[str(folder / ANCHOR_NAME)].durable))
    assert found is not None
    assert found.head == anchor.head == _head(1)


@pytest.mark.parametrize("data", [b"", b"\0" * 8_192, b"STEERAN1" * 1_024, b"x" * 100])
def test_garbage_is_no_anchor(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ANCHOR_NAME).write_bytes(data)
    with pytest.raises(JournalCorrupt, match="damaged"):
        read_anchor(OsFiles(), tmp_path)


def test_an_anchor_of_another_kind_is_no_anchor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.journal.anchor._MAGIC", b"STEERAN9")
    Anchor.create(OsFiles(), tmp_path, EMPTY_HEAD).close()
    monkeypatch.undo()
    with pytest.raises(JournalCorrupt, match="damaged"):
        read_anchor(OsFiles(), tmp_path)


def test_a_reader_looks_again_when_it_met_both_slots_being_written(tmp_path: Path) -> None:
    Anchor.create(OsFiles(), tmp_path, _head(3)).close()
    whole = (tmp_path / ANCHOR_NAME).read_bytes()

    class Torn(OsFiles):
        reads = 0

        def read(self, path: Path) -> bytes | None:
            self.reads += 1
            return whole if self.reads == READ_TRIES else b"torn"

    state = read_anchor(Torn(), tmp_path)
    assert state is not None
    assert state.head == _head(3)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(OsFiles(), path, [b"one"])

    class NoRoom(OsFiles):
        def rename(self, old: Path, new: Path) -> None:
            raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        write_whole(NoRoom(), path, [b"two"])
    assert path.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
