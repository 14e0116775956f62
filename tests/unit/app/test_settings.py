"""Which folder is the home, and which folders are refused."""

import os
from pathlib import Path

import pytest

from steersman.app.settings import PORT_DEFAULT, check_home, prepare_home, read_settings
from steersman.model.errors import HomeError

USER = {"HOME": "/users/ann"}


@pytest.mark.parametrize(
    ("environ", "given", "home"),
    [
        (USER, None, "/users/ann/.local/state/steersman"),
        ({**USER, "XDG_STATE_HOME": "/state"}, None, "/state/steersman"),
        ({**USER, "XDG_STATE_HOME": "relative"}, None, "/users/ann/.local/state/steersman"),
        ({**USER, "XDG_STATE_HOME": "/state", "STEERSMAN_HOME": "/here"}, None, "/here"),
        ({**USER, "STEERSMAN_HOME": ""}, None, "/users/ann/.local/state/steersman"),
        ({**USER, "STEERSMAN_HOME": "/here"}, "/there/../other", "/other"),
    ],
)
def test_which_home(environ: dict[str, str], given: str | None, home: str) -> None:
    assert read_settings(environ, None if given is None else Path(given)).home == Path(home)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings(USER, Path("x")).home == tmp_path / "x"


def test_no_home_at_all() -> None:
    with pytest.raises(HomeError, match="HOME is not set") as caught:
        read_settings({})
    assert "--home" in caught.value.hint


def test_a_nul_in_the_path() -> None:
    with pytest.raises(HomeError, match="NUL"):
        read_settings(USER, Path("/a\0b"))


@pytest.mark.parametrize(("text", "port"), [("", PORT_DEFAULT), ("0", 0), ("9000", 9000), ("65535", 65_535)])
def test_ports(text: str, port: int) -> None:
    assert read_settings({**USER, "STEERSMAN_PORT": text}).port == port
    assert read_settings({**USER, "STEERSMAN_PORT": text}, port=77).port == 77


@pytest.mark.parametrize("text", ["-1", "65536", "http", "80.0", "٣", " 80"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(HomeError, match="STEERSMAN_PORT"):
        read_settings({**USER, "STEERSMAN_PORT": text})


def test_a_home_is_made_for_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        prepare_home(home)
    finally:
        os.umask(before)
    assert home.stat().st_mode & 0o777 == 0o700
    prepare_home(home)


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o777])
def test_a_home_that_others_can_enter_is_refused_and_left_alone(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(HomeError, match=f"open to other users .mode {mode:04o}") as caught:
        prepare_home(home)
    assert "chmod 700" in caught.value.hint
    assert home.stat().st_mode & 0o777 == mode


def test_a_file_is_no_home(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(HomeError):
        prepare_home(path)
    with pytest.raises(HomeError):
        prepare_home(path / "below")
    with pytest.raises(HomeError, match="cannot read"):
        check_home(tmp_path / "missing")


def test_a_home_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(HomeError, match="belongs to another user"):
        check_home(home)


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HomeError, match="not writable"):
        check_home(home)
