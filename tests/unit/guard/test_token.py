"""The API's token: random, private, made once, and compared whole."""

import os
import stat
import threading
from pathlib import Path

import pytest

from steersman.guard.files import create_once, read_private, write_whole
from steersman.guard.token import TOKEN_NAME, load_or_create_token, load_token, same_token
from steersman.model.errors import AccessError, HomeError


def test_a_token_is_made_once(tmp_path: Path) -> None:
    assert load_token(tmp_path) is None
    token = load_or_create_token(tmp_path)
    assert load_or_create_token(tmp_path) == token == load_token(tmp_path)
    assert len(bytes.fromhex(token.removeprefix("st_"))) == 32
    assert stat.S_IMODE((tmp_path / TOKEN_NAME).stat().st_mode) == 0o600


def test_two_homes_have_two_tokens(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert load_or_create_token(tmp_path / "a") != load_or_create_token(tmp_path / "b")


def test_those_who_begin_together_agree(tmp_path: Path) -> None:
    tokens: list[str] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        tokens.append(load_or_create_token(tmp_path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [TOKEN_NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_token_that_others_could_touch_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_token(tmp_path)
    (tmp_path / TOKEN_NAME).chmod(mode)
    with pytest.raises(AccessError, match="read or written by others") as caught:
        load_token(tmp_path)
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"short", b"st_" + b"g" * 64, b"st_" + b"a" * 63, b"x" * 4096])
def test_what_is_no_token_is_refused(tmp_path: Path, data: bytes) -> None:
    write_whole(tmp_path / TOKEN_NAME, data)
    with pytest.raises(AccessError):
        load_token(tmp_path)


def test_comparing() -> None:
    token = "st_" + "a1" * 32
    assert same_token(token, token)
    for other in ("", token[:-1], token + "0", token.upper(), "st_" + "0" * 64, "\udcff", "é" * 67):
        assert not same_token(other, token)


def test_a_whole_file_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    path.chmod(0o600)
    write_whole(path, b"new")
    assert read_private(path, 10) == b"new"
    assert not create_once(path, b"other")
    assert read_private(path, 10) == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="cannot use"):
        write_whole(tmp_path / "missing" / "file", b"data")


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / TOKEN_NAME, 0o600)
    with pytest.raises(AccessError, match="not a file"):
        load_token(tmp_path)
