"""State images: intact, of this build and this history, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.journal_events import sized

from steersman.journal import SqliteJournal
from steersman.journal.files import OsFiles
from steersman.journal.images import IMAGES_FOLDER, ImageFiles
from steersman.model.errors import JournalWriteError
from steersman.ports.journal import Head


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        for number in range(5):
            journal.append([sized(number)], at_ms=number)
        journal.save_image(3, "build", b"three")
        journal.save_image(5, "build", b"five" * 2_000)
    return home


def _load(home: Path, build: str = "build") -> tuple[int, bytes] | None:
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        return journal.load_image(build)


def _images(home: Path) -> list[Path]:
    return sorted((home / IMAGES_FOLDER).iterdir())


def test_images_outlive_the_process_and_two_are_kept(home: Path) -> None:
    assert _load(home) == (5, b"five" * 2_000)
    assert _load(home, "another") is None
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        journal.save_image(4, "build", b"four")
        assert journal.load_image("build") == (4, b"four")
    assert [path.name[:20].lstrip("0") for path in _images(home)] == ["3", "4"], "5 is not of this history"


def _flip(offset: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[offset] ^= 0x04
        path.write_bytes(data)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *[_flip(offset) for offset in (0, 8, 40, 47, 48, 79, 83, 84, 90, -1)],
        lambda path: os.truncate(path, 4_000),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, 30),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        Path.unlink,
    ],
)
def test_a_damaged_image_is_passed_over(home: Path, damage: Callable[[Path], None]) -> None:
    damage(_images(home)[1])
    assert _load(home) == (3, b"three")


def test_any_of_them_may_vanish(home: Path) -> None:
    shutil.rmtree(home / IMAGES_FOLDER)
    assert _load(home) is None
    (home / IMAGES_FOLDER).write_text("not a folder")
    assert _load(home) is None


def test_an_image_that_cannot_be_read_is_passed_over(home: Path) -> None:
    path = _images(home)[1]
    path.unlink()
    path.mkdir()
    assert _load(home) == (3, b"three")


def test_an_image_of_another_history_is_not_returned(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with contextlib.closing(SqliteJournal.open(other)) as journal:
        for number in range(5):
            journal.append([sized(number)], at_ms=number + 1)
    shutil.copytree(home / IMAGES_FOLDER, other / IMAGES_FOLDER)
    assert _load(other) is None
    with contextlib.closing(SqliteJournal.open(other)) as journal:
        journal.append([sized(6)], at_ms=6)
        journal.save_image(6, "build", b"mine")
    assert _load(other) == (6, b"mine")


def test_an_image_from_beyond_the_head_is_not_returned(home: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    with contextlib.closing(SqliteJournal.open(short)) as journal:
        for number in range(4):
            journal.append([sized(number)], at_ms=number)
    shutil.copytree(home / IMAGES_FOLDER, short / IMAGES_FOLDER)
    assert _load(short) == (3, b"three"), "the same history up to there, by its digest"


def test_other_files_in_the_folder_are_not_images(home: Path) -> None:
    (home / IMAGES_FOLDER / "leftover.image.tmp").write_text("cut off")
    assert _load(home) == (5, b"five" * 2_000)
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        journal.save_image(5, "build", b"again")
    assert len(_images(home)) == 2, "what a cut-off save left is cleaned up"


def test_an_image_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.journal.images.IMAGE_BYTES_MAX", 10)
    images = ImageFiles(OsFiles(), tmp_path)
    with pytest.raises(JournalWriteError, match="larger"):
        images.save(Head(position=1, digest=bytes(32)), "build", bytes(11))
    images.save(Head(position=1, digest=bytes(32)), "build", bytes(10))
