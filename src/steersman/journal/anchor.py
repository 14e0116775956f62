"""The head anchor: where the journal ends, kept outside the database.

A database restored from an older copy, or one whose write-ahead log was deleted, is a perfect database: it
verifies, and misses its end. Only something outside of it can tell. The anchor is one small file with two
slots of one sector each, 4 KiB apart, written in turn: a slot holds a sequence number, a position, the
chain's digest there, and a checksum. A write that tears leaves the other slot, which is one append older.
Overwriting in place with one fdatasync costs a third of temp, fsync, rename, fsync.

Order: the database commits first, then the anchor is written and synced, then the append is acknowledged.
So the anchor is never ahead of the database, whatever happens, and a database behind the anchor has lost
acknowledged events. A database ahead of the anchor by one append was cut in between: at the next open the
anchor is rolled forward, after the chain between the two was checked.

A slot that failed to be written is written again before the other one is touched, so one is always whole.
"""

import hashlib
import struct
from pathlib import Path

import msgspec

from steersman.journal.files import Files, OpenFile, write_whole
from steersman.model.errors import JournalCorrupt
from steersman.ports.journal import Head

ANCHOR_NAME = "journal.anchor"
SLOT_SPACING_BYTES = 4096
SLOT_BYTES = 512
READ_TRIES = 3
"""A reader may meet a slot while it is being written; the other one is whole. Both: it reads again."""

_MAGIC = b"STEERAN1"
_SLOT = struct.Struct(">8sQQ32s")


class AnchorState(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest whole slot holds."""

    sequence: int
    head: Head


def _encode_slot(state: AnchorState) -> bytes:
    body = _SLOT.pack(_MAGIC, state.sequence, state.head.position, state.head.digest)
    return (body + hashlib.sha256(body).digest()).ljust(SLOT_BYTES, b"\0")


def _decode_slot(data: bytes) -> AnchorState | None:
    body, checksum = data[: _SLOT.size], data[_SLOT.size : _SLOT.size + 32]
    if len(data) != SLOT_BYTES or hashlib.sha256(body).digest() != checksum:
        return None
    magic, sequence, position, digest = _SLOT.unpack(body)
    if magic != _MAGIC:
        return None
    return AnchorState(sequence=sequence, head=Head(position=position, digest=digest))


def decode_anchor(data: bytes) -> AnchorState | None:
    """The newest whole slot of an anchor file's bytes, or None."""
    slots = (_decode_slot(data[start : start + SLOT_BYTES]) for start in (0, SLOT_SPACING_BYTES))
    whole = [slot for slot in slots if slot is not None]
    return max(whole, key=lambda slot: slot.sequence, default=None)


def read_anchor(files: Files, folder: Path) -> AnchorState | None:
    """What the anchor of a folder holds; None when there is no anchor. Raises JournalCorrupt, OSError."""
    path = folder / ANCHOR_NAME
    for _ in range(READ_TRIES):
        data = files.read(path)
        if data is None:
            return None
        state = decode_anchor(data)
        if state is not None:
            return state
    raise JournalCorrupt(
        f"the head anchor {path} is damaged: neither of its slots is whole",
        hint="restore the home from a backup; `steer audit --verify` reads what is there",
    )


class Anchor:
    """The writing end. One per home; the caller holds the home's lock."""

    def __init__(self, file: OpenFile, state: AnchorState) -> None:
        self._file = file
        self._state = state

    @classmethod
    def create(cls, files: Files, folder: Path, head: Head) -> "Anchor":
        """Write a new anchor, whole and durable. Raises OSError."""
        state = AnchorState(sequence=0, head=head)
        path = folder / ANCHOR_NAME
        write_whole(files, path, [_encode_slot(state).ljust(2 * SLOT_SPACING_BYTES, b"\0")])
        return cls(files.open(path, create=False), state)

    @classmethod
    def resume(cls, files: Files, folder: Path, state: AnchorState) -> "Anchor":
        """Go on with an anchor that was read. Raises OSError."""
        return cls(files.open(folder / ANCHOR_NAME, create=False), state)

    @property
    def head(self) -> Head:
        """The head as last written durably."""
        return self._state.head

    def write(self, head: Head) -> None:
        """Move the anchor, durably. Raises OSError: then the former head still stands in the other slot."""
        state = AnchorState(sequence=self._state.sequence + 1, head=head)
        self._file.write_at(_encode_slot(state), (state.sequence % 2) * SLOT_SPACING_BYTES)
        self._file.sync()
        self._state = state

    def close(self) -> None:
        self._file.close()
