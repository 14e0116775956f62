"""The log writer keeps everything in order within its bounds, also when the disk refuses."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.shim.logs import LOG_FILES_MAX, LogWriter

FILE_BYTES, LINE_BYTES = 64, 16
chunks = st.lists(st.lists(st.sampled_from([b"\n", b"a", b"bc"]), max_size=60).map(b"".join), max_size=12)


def kept(path: Path) -> list[bytes]:
    files = [path.with_name(f"{path.name}.{number}") for number in range(LOG_FILES_MAX - 1, 0, -1)]
    return [file.read_bytes() for file in [*files, path] if file.exists()]


@given(data=chunks)
def test_what_is_kept_is_the_end_of_what_came(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("logs") / "out.log"
    writer = LogWriter(str(path), file_bytes_max=FILE_BYTES, line_bytes_max=LINE_BYTES)
    for chunk in data:
        writer.feed(chunk)
    writer.close()
    whole, files = b"".join(data), kept(path)
    # Line breaks are put in, never anything else; so the letters must be a tail of the letters that came.
    assert whole.replace(b"\n", b"").endswith(b"".join(files).replace(b"\n", b""))
    assert all(len(line) <= LINE_BYTES for file in files for line in file.split(b"\n"))
    assert all(len(file) <= FILE_BYTES + LINE_BYTES + 1 for file in files)
    assert all(file.endswith(b"\n") for file in files[:-1] if len(files) > 1 and path.exists())
    if len(whole) + whole.count(b"\n") < FILE_BYTES and all(
        len(line) < LINE_BYTES for line in whole.split(b"\n")
    ):
        assert b"".join(files) == whole


def test_an_old_log_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    for text in (b"one\n", b"two\n"):
        writer = LogWriter(str(path))
        writer.feed(text)
        writer.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_loses_output_but_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.log"
    writer = LogWriter(str(path))
    writer.feed(b"before\n")
    real = os.write

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.feed(b"lost 1\n")
    writer.feed(b"lost 2\n")
    monkeypatch.setattr(os, "write", real)
    writer.feed(b"after\n")
    writer.close()
    assert path.read_bytes() == b"before\n\n[steersman: 14 bytes of output lost, no room]\nafter\n"
