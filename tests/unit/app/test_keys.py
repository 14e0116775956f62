"""What may be asked of an API key, and what is refused with a hint."""

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace
from tests.unit.explain.served import Served, service

from steersman.app import keys
from steersman.app.cli.key import _band, _duration_ms, _expiry, _rate_milli
from steersman.app.wire import KeyRequest
from steersman.guard.api_keys import digest_of
from steersman.model.errors import ConflictError
from steersman.model.snapshot import Snapshot

NOW_MS = 1_000_000


@pytest.fixture
def home() -> Served:
    made = Served()
    made.serve(service())
    return made


def test_a_key_from_making_to_revoking(home: Served) -> None:
    asked = KeyRequest(name="app", services=("digits",), expires_in_ms=5_000, rate_milli=1_500, weight=3)
    made = keys.create(home.snapshot, asked, NOW_MS)
    assert made.event.key.digest == digest_of(made.new.text)
    assert made.new.text not in msgspec.json.encode(made.event).decode()
    home.fold(made.event)
    (held,) = home.snapshot.keys
    assert (held.services, held.expires_ms, held.rate_milli, held.weight) == (
        ("digits",),
        NOW_MS + 5_000,
        1_500,
        3,
    )
    assert not keys.view(held, NOW_MS).expired
    assert keys.view(held, NOW_MS + 5_000).expired
    assert made.new.text not in msgspec.json.encode(keys.view(held, NOW_MS)).decode()
    with pytest.raises(ConflictError, match="there is a key called 'app'"):
        keys.create(home.snapshot, asked, NOW_MS)
    home.fold(keys.revoke(home.snapshot, "app"))
    assert home.snapshot.keys == ()


@pytest.mark.parametrize(
    ("asked", "words", "hint"),
    [
        ({"name": "Mobile App"}, "not a name for a key", "lower-case"),
        ({"name": "../x"}, "not a name for a key", "lower-case"),
        ({"services": ("digitz",)}, "no service called 'digitz'", "did you mean 'digits'"),
        ({"burst": 10**9}, "burst of the key is too large", "1,000,000"),
        ({"rate_milli": 10**12}, "rate of the key is too large", "requests a second"),
        ({"expires_in_ms": 10**15}, "expires of the key is too large", "ten years"),
    ],
)
def test_what_is_refused(home: Served, asked: dict[str, object], words: str, hint: str) -> None:
    request = replace(KeyRequest(name="app"), **asked)
    with pytest.raises(ConflictError, match=words) as refused:
        keys.create(home.snapshot, request, NOW_MS)
    assert hint in refused.value.hint


def test_unknown_names() -> None:
    with pytest.raises(ConflictError, match="no key called 'app'") as refused:
        keys.revoke(Snapshot(), "app")
    assert "steer key create" in refused.value.hint
    with pytest.raises(ConflictError) as refused:
        keys.create(Snapshot(), KeyRequest(name="app", services=("digits",)), NOW_MS)
    assert "steer up" in refused.value.hint


def test_amounts_as_people_write_them() -> None:
    assert _duration_ms("30d") == 30 * 86_400_000
    assert _duration_ms(None) is None
    assert _rate_milli(0.5) == 500
    assert _rate_milli(None) is None
    assert _band("high") == 2
    wrong: tuple[Callable[[], object], ...] = (
        lambda: _duration_ms("soon"),
        lambda: _rate_milli(0),
        lambda: _band("urgent"),
    )
    for each in wrong:
        with pytest.raises(ConflictError) as refused:
            each()
        assert refused.value.hint


def test_expiry_in_words(home: Served) -> None:
    made = keys.create(home.snapshot, KeyRequest(name="app"), NOW_MS).event.key
    assert _expiry(keys.view(made, NOW_MS)) == "never"
    assert _expiry(keys.view(replace(made, expires_ms=1), NOW_MS)) == "expired"
