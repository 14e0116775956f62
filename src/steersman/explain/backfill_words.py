"""Words for who waits for room that is promised, and for who waits behind it. A part of `words`."""

from collections.abc import Callable, Mapping

from steersman.model.reasons import Code
from steersman.model.units import format_duration_ms

Facts = Mapping[str, str | int]


def _whole(span_ms: int) -> str:
    """No more than that, in whole seconds where there are any."""
    return format_duration_ms(span_ms // 1_000 * 1_000 or span_ms)


def _left(facts: Facts) -> str:
    return _whole(int(facts["left_ms"]))


def _promised(facts: Facts) -> str:
    more = int(facts.get("nodes", 1)) - 1
    where = f"{facts.get('node', 'its nodes')}{f' and {more} more' if more else ''}"
    when = f"within {_left(facts)}" if "left_ms" in facts else "when what runs there has ended"
    return f"room on {where} is kept for it as it comes free; expected to start {when}"


def _waits_behind(facts: Facts) -> str:
    when = f"within {_left(facts)}" if "left_ms" in facts else "once what runs there has ended"
    return (
        f"there is room, but it is kept for {facts.get('by')}, which came first and is to start {when}; "
        "this one might still run then"
    )


def waits_behind_fix(facts: Facts) -> str:
    """Until when to wait, or the `max_duration` with which it could start now."""
    wait = f"wait for {facts.get('by')} (steer explain {facts.get('by')})"
    if "max_duration_ms" not in facts:
        return wait
    return f"set max_duration: at most {_whole(int(facts['max_duration_ms']))}, or {wait}"


BACKFILL_WORDS: Mapping[Code, Callable[[Facts], str]] = {
    Code.ROOM_PROMISED: _promised,
    Code.WAITING_BACKFILL: _waits_behind,
}
