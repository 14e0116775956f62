"""Sealed secrets: what is set comes back, and nothing else ever does."""

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.guard.secrets import (
    KEY_NAME,
    NAME,
    NONCE_BYTES,
    SECRETS,
    SECRETS_MAX,
    VALUE_BYTES_MAX,
    Secrets,
)
from steersman.model.errors import AccessError, ConflictError
from steersman.spec.values import SECRET_PATTERN


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def test_names_are_those_of_declarations() -> None:
    assert NAME.pattern == SECRET_PATTERN


def test_what_is_set_comes_back(home: Path) -> None:
    Secrets(home).set("TOKEN", "välue\nof two lines")
    assert Secrets(home).get("TOKEN") == "välue\nof two lines"
    Secrets(home).set("TOKEN", "newer")
    assert Secrets(home).get("TOKEN") == "newer"


def test_no_value_stands_in_the_clear(home: Path) -> None:
    value = "correct-horse-battery-staple"
    Secrets(home).set("TOKEN", value)
    for path in home.rglob("*"):
        if path.is_file():
            assert value.encode() not in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / SECRETS).stat().st_mode) == 0o700


def test_equal_values_are_sealed_differently(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("A", "same")
    sealed.set("B", "same")
    first, second = ((home / SECRETS / name).read_bytes() for name in ("A", "B"))
    assert first[1 : 1 + NONCE_BYTES] != second[1 : 1 + NONCE_BYTES]
    assert first[1 + NONCE_BYTES :] != second[1 + NONCE_BYTES :]


def test_every_altered_byte_is_found(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("TOKEN", "value")
    path = home / SECRETS / "TOKEN"
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(bytes([*whole[:index], whole[index] ^ 1, *whole[index + 1 :]]))
        with pytest.raises(AccessError):
            sealed.get("TOKEN")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(AccessError):
            sealed.get("TOKEN")


def test_a_seal_is_bound_to_its_name(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("HARMLESS", "x")
    sealed.set("PRECIOUS", "y")
    (home / SECRETS / "PRECIOUS").rename(home / SECRETS / "HARMLESS")
    with pytest.raises(AccessError, match="altered or sealed with another key"):
        sealed.get("HARMLESS")


def test_another_key_opens_nothing(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("TOKEN", "value")
    (home / SECRETS / KEY_NAME).write_bytes(b"k" * 32)
    with pytest.raises(AccessError) as caught:
        sealed.get("TOKEN")
    assert "value" not in str(caught.value)
    assert "steer secret set TOKEN" in caught.value.hint


def test_a_lost_key_is_not_made_anew_while_secrets_need_it(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("TOKEN", "value")
    (home / SECRETS / KEY_NAME).unlink()
    for work in (lambda: sealed.get("TOKEN"), lambda: sealed.set("OTHER", "value")):
        with pytest.raises(AccessError, match=r"the key .* is missing"):
            work()
    assert sealed.list() == ("TOKEN",)


def test_a_key_that_others_can_read_is_refused(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("TOKEN", "value")
    (home / SECRETS / KEY_NAME).chmod(0o640)
    with pytest.raises(AccessError, match="others"):
        sealed.get("TOKEN")


def test_a_link_is_not_followed(home: Path, tmp_path: Path) -> None:
    sealed = Secrets(home)
    sealed.set("TOKEN", "value")
    moved = tmp_path / "elsewhere"
    (home / SECRETS / KEY_NAME).rename(moved)
    (home / SECRETS / KEY_NAME).symlink_to(moved)
    with pytest.raises(Exception, match="cannot use") as caught:
        sealed.get("TOKEN")
    assert getattr(caught.value, "code", "") == "home"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".key", "../x", "a/b", "a\0b", "a b", "-x", "1x", "x" * 64, "é"]
)
def test_bad_names_are_refused_and_not_repeated(home: Path, name: str) -> None:
    sealed = Secrets(home)
    for work in (lambda: sealed.set(name, "v"), lambda: sealed.get(name), lambda: sealed.delete(name)):
        with pytest.raises(ConflictError) as caught:
            work()
        assert caught.value.code == "bad-name"
        assert len(name) < 4 or name not in str(caught.value)
    assert not (home / SECRETS).exists()


@pytest.mark.parametrize("value", ["", "a\0b", "x" * (VALUE_BYTES_MAX + 1)])
def test_values_that_no_job_could_get_are_refused(home: Path, value: str) -> None:
    with pytest.raises(ConflictError):
        Secrets(home).set("TOKEN", value)
    assert Secrets(home).list() == ()


def test_what_is_not_there(home: Path) -> None:
    sealed = Secrets(home)
    assert sealed.list() == ()
    for work in (lambda: sealed.get("TOKEN"), lambda: sealed.delete("TOKEN")):
        with pytest.raises(ConflictError, match="no secret called 'TOKEN'") as caught:
            work()
        assert caught.value.code == "unknown-secret"


def test_removing(home: Path) -> None:
    sealed = Secrets(home)
    for name in ("B", "A", "C"):
        sealed.set(name, "v")
    sealed.delete("B")
    assert sealed.list() == ("A", "C")


def test_their_number_is_limited(home: Path) -> None:
    sealed = Secrets(home)
    sealed.set("FIRST", "v")
    whole = (home / SECRETS / "FIRST").read_bytes()
    for index in range(SECRETS_MAX - 1):
        (home / SECRETS / f"S{index}").write_bytes(whole)
    with pytest.raises(ConflictError, match=f"{SECRETS_MAX} secrets already"):
        sealed.set("MORE", "v")
    sealed.set("FIRST", "again")


@given(
    value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200)
)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    sealed = Secrets(tmp_path_factory.mktemp("home"))
    sealed.set("TOKEN", value)
    assert sealed.get("TOKEN") == value
    assert re.fullmatch(r"\('TOKEN',\)", str(sealed.list()))
