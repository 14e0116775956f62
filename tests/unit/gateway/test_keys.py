"""API keys: found, scoped, expired, counted."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.gateway.http.keys import REMEMBERED_MAX, Key, KeyRing
from steersman.model.ids import WorkloadName
from steersman.model.service import ApiKey


def api_key(text: str, **fields: object) -> ApiKey:
    base = ApiKey(name=text, digest=hashlib.sha256(text.encode()).hexdigest())
    return ApiKey(**{name: getattr(base, name) for name in base.__struct_fields__} | fields)


def ring(*keys: ApiKey, processes: int = 1) -> KeyRing:
    made = KeyRing()
    made.configure(keys, processes)
    return made


def test_found_in_both_headers_and_only_whole() -> None:
    keys = ring(api_key("secret"))
    assert keys.find(b"Bearer secret", 0, bearer=True) is keys.find(b"secret", 0, bearer=False) is not None
    assert keys.find(b"bearer secret", 0, bearer=True) is not None
    for raw in (b"secret", b"Bearer", b"Bearer ", b"Basic secret", b"Bearer secre", b"Bearer secret x"):
        assert keys.find(raw, 0, bearer=True) is None, raw


def test_an_empty_key_is_none_even_if_its_digest_is_configured() -> None:
    assert ring(api_key("")).find(b"Bearer ", 0, bearer=True) is None
    assert ring(api_key("")).find(b"", 0, bearer=False) is None


def test_what_is_remembered_expires_all_the_same() -> None:
    keys = ring(api_key("k", expires_ms=100))
    assert keys.find(b"k", 99, bearer=False) is not None
    assert keys.find(b"k", 100, bearer=False) is None
    assert keys.find(b"k", 101, bearer=False) is None


def test_what_is_removed_is_not_remembered() -> None:
    keys = ring(api_key("k"))
    assert keys.find(b"k", 0, bearer=False)
    keys.configure((), 1)
    assert keys.find(b"k", 0, bearer=False) is None


def test_the_memory_is_bounded() -> None:
    keys = ring(api_key("k"))
    for n in range(2 * REMEMBERED_MAX):
        keys.find(b"Bearer " + b" " * (n % 400) + b"k", 0, bearer=True)
        keys.find(b"unknown-%d" % n, 0, bearer=False)
    assert len(keys._remembered) <= REMEMBERED_MAX


def test_scope() -> None:
    key = Key(api_key("k", services=(WorkloadName("a"),)), 1)
    assert (key.may_use("a"), key.may_use("b"), Key(api_key("k"), 1).may_use("b")) == (True, False, True)


def test_what_was_used_survives_a_new_configuration() -> None:
    declared = api_key("k", rate_milli=1_000, burst=2, concurrency=1)
    keys = ring(declared)
    key = keys.find(b"k", 0, bearer=False)
    assert key is not None
    assert key.gcra is not None
    assert key.acquire()
    assert not key.gcra.take(9.0)
    assert not key.gcra.take(9.0)
    keys.configure((api_key("other"), declared), 1)
    same = keys.find(b"k", 0, bearer=False)
    assert same is key
    assert not key.acquire()
    assert key.gcra.take(9.0) > 0


def test_limits_are_shared_by_the_processes() -> None:
    key = Key(api_key("k", rate_milli=4_000, burst=10, concurrency=3), 4)
    assert key.gcra is not None
    assert (key.gcra.interval_s, key.concurrency) == (1.0, 1)
    assert sum(not key.gcra.take(1.0) for _ in range(10)) == 3


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=100))
def test_acquired_is_released_and_live(concurrency: int, steps: list[bool]) -> None:
    key, live = Key(api_key("k", concurrency=concurrency), 1), 0
    for take in steps:
        if take:
            live += key.acquire()
        elif live:
            key.release()
            live -= 1
        assert key.acquired == key.released + key.live
        assert key.live == live <= concurrency
