"""Frames come out as they went in, however the bytes are cut, and nothing else comes out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.replica.frames import BUFFER_BYTES, FrameReader
from steersman.ports import replica_wire as wire

SIZES = st.one_of(st.integers(0, 60), st.sampled_from([BUFFER_BYTES - 30, BUFFER_BYTES, 3 * BUFFER_BYTES]))


def feed(
    reader: FrameReader, data: bytes, cuts: list[int]
) -> list[tuple[int, int, dict[str, object], bytes]]:
    """What is read when the bytes come in pieces; frames are taken now and then, as a server would."""
    found = []
    place = turn = 0
    while place < len(data) or reader.whole():
        if not reader.whole():
            room = reader.room()
            assert len(room) > 0
            count = min(len(room), max(cuts[turn % len(cuts)], 1), len(data) - place)
            room[:count] = data[place : place + count]
            reader.advance(count)
            place += count
            turn += 1
        frame = reader.next()
        if frame is not None:
            found.append((frame.kind, frame.batch, frame.meta, bytes(frame.payload)))
    return found


@given(
    sizes=st.lists(SIZES, max_size=6), cuts=st.lists(st.integers(1, 2 * BUFFER_BYTES), min_size=1, max_size=5)
)
def test_any_cut_gives_the_same_frames(sizes: list[int], cuts: list[int]) -> None:
    sent = [(wire.INFER, batch, {"size": size}, bytes([batch]) * size) for batch, size in enumerate(sizes)]
    data = b"".join(b"".join(wire.pack(kind, batch, 1, meta, load)) for kind, batch, meta, load in sent)

    assert feed(FrameReader(), data, cuts) == sent


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    try:
        feed(FrameReader(), data, [7])
    except ValueError:
        return


def test_a_length_beyond_the_wire_is_refused_before_room_is_made() -> None:
    reader = FrameReader()
    head = wire.HEADER.pack(wire.BODY_BYTES_MAX + 1, wire.INFER, 0, 1, 1)
    reader.room()[: len(head)] = head
    reader.advance(len(head))

    with pytest.raises(ValueError, match="longer"):
        reader.room()
    with pytest.raises(ValueError, match="longer"):
        reader.next()


def test_meta_that_is_nested_too_deep_is_refused() -> None:
    meta = b"[" * 200_000
    data = wire.HEADER.pack(4 + len(meta), wire.INFER, 0, 1, 1) + wire.META.pack(len(meta)) + meta
    with pytest.raises(ValueError, match=r"deep|JSON|Expecting"):
        feed(FrameReader(), data, [len(data)])
    assert json.loads("[]") == []
