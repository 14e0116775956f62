"""Reading output in pieces gives what was written, whatever the pieces and whatever rotates meanwhile."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.app.logs import LINE_CHARS_MAX, last_line, read_log, runs_of
from steersman.dataplane.shim.logs import LOG_FILES_MAX, LogWriter
from steersman.model.errors import ConflictError
from steersman.ports import run_dir


def _writer(rank: Path, file_bytes_max: int = 1 << 20) -> LogWriter:
    (rank / run_dir.LOGS).mkdir(parents=True)
    return LogWriter(str(rank / run_dir.LOGS / run_dir.LOG_FILE), file_bytes_max=file_bytes_max)


def _read_all(rank: Path, bytes_max: int, place: str = "") -> tuple[str, str, bool]:
    """The text from a place to the end, the place there, and whether anything was lost."""
    text, lost = "", False
    for _ in range(10_000):
        piece = read_log(rank, place, bytes_max)
        text, place, lost = text + piece.text, piece.next_place, lost or piece.lost
        if piece.end:
            return text, place, lost
    raise AssertionError("no end")


def test_no_log_yet(tmp_path: Path) -> None:
    piece = read_log(tmp_path, "")
    assert (piece.text, piece.next_place, piece.lost, piece.end) == ("", "", False, True)


@given(text=st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(4, 40))
def test_pieces_make_the_whole(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    rank = tmp_path_factory.mktemp("rank")
    writer = _writer(rank)
    writer.feed(text.encode())
    writer.close()
    assert _read_all(rank, size)[:1] == (text,)


def test_a_character_is_not_torn(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    whole = "añ€😀"
    data = whole.encode()
    text, place = "", ""
    for index in range(len(data)):
        writer.feed(data[index : index + 1])
        piece = read_log(tmp_path, place)
        text, place = text + piece.text, piece.next_place
    writer.close()
    assert text == whole


def test_what_is_not_utf8_does_not_stop_it(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.feed(b"ok \xff\xfe \x80\x80\x80\x80\x80 fine\n")
    writer.close()
    text, _, _ = _read_all(tmp_path, 5)
    assert text.startswith("ok ")
    assert text.endswith(" fine\n")


def test_a_follower_goes_through_rotation(tmp_path: Path) -> None:
    writer = _writer(tmp_path, file_bytes_max=200)
    text, place, lost = "", "", False
    expected = ""
    for number in range(90):
        line = f"line {number}\n"
        expected += line
        writer.feed(line.encode())
        more, place, gone = _read_all(tmp_path, 64, place)
        text, lost = text + more, lost or gone
    writer.close()
    assert text == expected
    assert not lost
    assert len(list((tmp_path / run_dir.LOGS).iterdir())) == LOG_FILES_MAX


def test_who_comes_late_is_told_what_was_lost(tmp_path: Path) -> None:
    writer = _writer(tmp_path, file_bytes_max=100)
    writer.feed(b"the first line\n")
    place = read_log(tmp_path, "").next_place
    held = (tmp_path / run_dir.LOGS / run_dir.LOG_FILE).open("rb")  # keeps the inode from being used again
    with held:
        for number in range(200):
            writer.feed(f"line {number}\n".encode())
        text, _, lost = _read_all(tmp_path, 64, place)
    writer.close()
    assert lost
    assert text.endswith("line 199\n")
    assert "the first line" not in text


@pytest.mark.parametrize("place", ["x", "1", "-1:0", "1:-1", "1:2:3", "../etc", "9" * 30 + ":1", "1:1\n"])
def test_what_is_no_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConflictError) as caught:
        read_log(tmp_path, place)
    assert caught.value.code == "bad-offset"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not show")
    (tmp_path / "rank" / run_dir.LOGS).mkdir(parents=True)
    (tmp_path / "rank" / run_dir.LOGS / run_dir.LOG_FILE).symlink_to(secret)
    assert read_log(tmp_path / "rank", "").text == ""


def test_runs_are_those_of_the_workload(tmp_path: Path) -> None:
    for name in ("a.9", "a.10", "a.x", "ab.3", "a", ".a.1"):
        (tmp_path / run_dir.RUNS / name).mkdir(parents=True)
    assert runs_of(tmp_path, "a") == ["a.9", "a.10"]
    assert runs_of(tmp_path, "c") == []
    assert runs_of(tmp_path / "none", "a") == []


def test_the_last_line_is_found_behind_blanks_and_across_rotation(tmp_path: Path) -> None:
    assert last_line(tmp_path) == ""
    writer = _writer(tmp_path, file_bytes_max=64)
    writer.feed(b"first\n")
    assert last_line(tmp_path) == "first"
    writer.feed(b"why it \xff failed\n\n  \n" + b"\n" * 70)
    writer.close()
    assert last_line(tmp_path) == "why it \ufffd failed"


def test_a_last_line_is_cut(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.feed(b"x" * (LINE_CHARS_MAX + 1) + b"\n")
    writer.close()
    assert last_line(tmp_path) == "x" * (LINE_CHARS_MAX - 1) + "…"
