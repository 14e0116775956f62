"""Amounts survive being shown and read again, and no text makes a parser raise anything but SpecError."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.model.errors import SpecError
from steersman.model.units import (
    CPU_MILLI_MAX,
    DURATION_MS_MAX,
    MEMORY_BYTES_MAX,
    format_bytes,
    format_cpu,
    format_duration_ms,
    parse_cpu,
    parse_duration_ms,
    parse_memory,
)


@given(st.integers(1, CPU_MILLI_MAX))
def test_cores_round_trip(milli: int) -> None:
    assert parse_cpu(format_cpu(milli)).least == milli
    assert parse_cpu(f"{milli}m").least == milli


@given(st.integers(1, DURATION_MS_MAX))
def test_durations_round_trip(duration_ms: int) -> None:
    assert parse_duration_ms(format_duration_ms(duration_ms)) == duration_ms


@given(st.integers(1, MEMORY_BYTES_MAX) | st.integers(1, 1024).map(lambda n: n * 2**30))
def test_memory_round_trips_exactly_or_says_that_it_is_rounded(size: int) -> None:
    text = format_bytes(size)
    back = parse_memory(text.removeprefix("≈")).least
    if text.startswith("≈"):
        assert abs(Fraction(back - size, size)) <= Fraction(1, 200)
    else:
        assert back == size


@given(st.integers(0, 10**6), st.integers(0, 10**9), st.sampled_from(["B", "KB", "MiB", "GB", "T"]))
def test_memory_agrees_with_exact_fractions(whole: int, billionths: int, unit: str) -> None:
    """The reading of a decimal is the exact product, rounded up: an independent oracle in fractions."""
    factor = {"B": 1, "KB": 2**10, "MiB": 2**20, "GB": 2**30, "T": 2**40}[unit]
    exact = (whole + Fraction(billionths, 10**9)) * factor
    expected = -(-exact.numerator // exact.denominator)
    text = f"{whole}.{billionths:09d}{unit}" if billionths < 10**9 else f"{whole + 1}{unit}"
    if 0 < expected <= MEMORY_BYTES_MAX:
        assert parse_memory(text).least == expected
    else:
        with pytest.raises(SpecError):
            parse_memory(text)


AMOUNT_LIKE = st.text(alphabet="0123456789.+-:eExXmMgGbBiIsShHdDwW_ \t\n٣", max_size=70) | st.text(
    max_size=20
)


@pytest.mark.parametrize("parse", [parse_cpu, parse_memory, parse_duration_ms])
@given(text=AMOUNT_LIKE)
def test_any_text_is_read_or_refused(parse: Callable[[str], object], text: str) -> None:
    hint = "read"
    try:
        parse(text)
    except SpecError as error:
        hint = error.hint
    assert hint
