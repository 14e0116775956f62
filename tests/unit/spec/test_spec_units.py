"""Amounts: what is read, what is refused with what, why and examples, and how amounts are shown."""

import pytest

from steersman.model.errors import SpecError
from steersman.model.units import (
    CPU_MILLI_MAX,
    DURATION_MS_MAX,
    MEMORY_BYTES_MAX,
    Amount,
    format_bytes,
    format_cpu,
    format_duration_ms,
    parse_cpu,
    parse_duration_ms,
    parse_memory,
)

GIB = 2**30


def at_least(least: int) -> Amount:
    return Amount(least=least, most=None)


def just(amount: int) -> Amount:
    return Amount(least=amount, most=amount)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2", just(2000)),
        ("0.5", just(500)),
        (".5", just(500)),
        ("2.", just(2000)),
        ("500m", just(500)),
        ("4+", at_least(4000)),
        (" 4 + ", at_least(4000)),
        ("4..", at_least(4000)),
        ("4..8", Amount(least=4000, most=8000)),
        ("0.0001", just(1)),
        ("100000", just(CPU_MILLI_MAX)),
    ],
)
def test_cores(text: str, amount: Amount) -> None:
    assert parse_cpu(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("16", just(16 * GIB)),
        ("16+", at_least(16 * GIB)),
        ("16GB", just(16 * GIB)),
        ("16GiB", just(16 * GIB)),
        ("16 gb", just(16 * GIB)),
        ("16g", just(16 * GIB)),
        ("512MB", just(512 * 2**20)),
        ("1.5GB", just(3 * 2**29)),
        ("100B", just(100)),
        ("0.3B", just(1)),
        ("24GB..40GB", Amount(least=24 * GIB, most=40 * GIB)),
        ("24GB..", at_least(24 * GIB)),
        ("1PB", just(MEMORY_BYTES_MAX)),
    ],
)
def test_memory(text: str, amount: Amount) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("90", 90_000),
        ("1.5", 1_500),
        ("90s", 90_000),
        ("10m", 600_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1w", 604_800_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("250ms", 250),
        ("3650d", DURATION_MS_MAX),
    ],
)
def test_durations(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text) == duration_ms


BAD_EVERYWHERE = [
    ("0", "more than zero"),
    ("-1", "negative"),
    (".nan", "finite"),
    ("NaN", "finite"),
    (".inf", "finite"),
    ("-.inf", "finite"),
    ("1" + "0" * 40, "the most is"),
    ("9" * 100, "longer than 64"),
    ("", "plain decimal"),
    (".", "plain decimal"),
    ("0x10", "plain decimal"),
    ("1:30", "plain decimal"),
    ("1e3", "plain decimal"),
    ("1_000", "plain decimal"),
    ("010", "leading zero"),
    ("4 apples", "is no unit"),
    ("４", "plain decimal"),
]


@pytest.mark.parametrize("parse", [parse_cpu, parse_memory, parse_duration_ms])
@pytest.mark.parametrize(("text", "why"), BAD_EVERYWHERE)
def test_bad_amounts_say_what_why_and_how(parse: object, text: str, why: str) -> None:
    assert callable(parse)
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert why in caught.value.message
    assert "is not a" in caught.value.message
    assert caught.value.hint.startswith("write for example ")


@pytest.mark.parametrize(
    ("parse", "text", "why"),
    [
        (parse_cpu, "8..4", "below the lower end"),
        (parse_cpu, "..4", "least amount is missing"),
        (parse_cpu, "4M", "is no unit"),
        (parse_cpu, "4..x", "plain decimal"),
        (parse_cpu, "100001", "the most is 100,000 cores"),
        (parse_memory, "4 furlongs", "'furlongs' is no unit"),
        (parse_memory, "1025TB", "the most is 1 PiB"),
        (parse_memory, "+", "plain decimal"),
        (parse_duration_ms, "30m1h", "larger before the smaller"),
        (parse_duration_ms, "1h1h", "each unit stands once"),
        (parse_duration_ms, "01h", "leading zero"),
        (parse_duration_ms, "0s", "more than zero"),
        (parse_duration_ms, "3651d", "the most is 3,650 days"),
        (parse_duration_ms, "5 M", "is no unit"),
        (parse_duration_ms, "1h-1m", "plain decimal"),
    ],
)
def test_bad_amounts_of_one_kind(parse: object, text: str, why: str) -> None:
    assert callable(parse)
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert why in caught.value.message


def test_exactness() -> None:
    assert parse_cpu("4").exact
    assert not parse_cpu("4+").exact
    assert not parse_cpu("4..8").exact
    assert parse_cpu("4..4").exact


@pytest.mark.parametrize(
    ("milli", "text"), [(0, "0"), (1, "0.001"), (500, "0.5"), (1000, "1"), (2250, "2.25"), (64_000, "64")]
)
def test_cores_are_shown(milli: int, text: str) -> None:
    assert format_cpu(milli) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 * 2**20, "512 MiB"),
        (GIB + 1, "≈1 GiB"),
        (GIB + GIB // 4, "1.25 GiB"),
        (2**50, "1 PiB"),
        (3 * 2**40, "3 TiB"),
        (2**30 - 1, "≈1024 MiB"),
    ],
)
def test_memory_is_shown(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0, "0s"), (250, "250ms"), (90_000, "1m30s"), (5_400_000, "1h30m"), (90_061_001, "1d1h1m1s1ms")],
)
def test_durations_are_shown(duration_ms: int, text: str) -> None:
    assert format_duration_ms(duration_ms) == text
