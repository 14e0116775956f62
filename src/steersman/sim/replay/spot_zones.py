"""Recorded spot availability: one file a zone, read strictly.

Theory of operation. A zone's file has rows start_tick, ticks, available (run-length; how many instances
could be had, so 1 = available). The length of a tick is not in it: it is read from an INDEX.csv beside the
file (columns trace and gap_s), from another zone of the same collection there (the part of the name before
the first `_`), and is otherwise taken as TICK_S_DEFAULT, which is counted. Ticks below JOIN_BELOW_S are
probes, not decisions: JOIN of them make a tick, which is up only when all of them are.

A tick of which the record says nothing is unknown, and unknown is closed: it is counted. Several zones are
looked at together, so they need one tick and are cut to the time that all of them cover.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from steersman.model.errors import TraceError
from steersman.model.pools import RESERVED_NAMES
from steersman.sim.replay.tables import amount, check_order, head_of, read_table, whole, word

INDEX = "INDEX.csv"
TICK_S_DEFAULT = 600.0
"""Where nothing tells it: the tick of the published simulator of this problem."""
TICK_S_MIN, TICK_S_MAX = 1.0, 86_400.0
JOIN_BELOW_S = 100.0
JOIN = 5
TICKS_MAX = 20_000_000
"""Of one zone: 380 years at 600 s; a row that claims more is a mistake, and would fill the memory."""

HOLES = "ticks of which the record says nothing: taken as not available"
REST = "ticks at an end, too few to make one of five"
OUTSIDE = "ticks outside the time that all zones cover"
GUESSED = "ticks' length that no INDEX.csv tells: taken as 600 s"
DROPS = (HOLES, REST, OUTSIDE, GUESSED)


class Zone(NamedTuple):
    """A pool's record: its tick, the number of its first tick, and 1 for each tick in which it was there."""

    name: str
    tick_ms: int
    first: int
    up: bytes


def read_zones(paths: Sequence[Path], dropped: Counter[str], told: Callable[[int], None]) -> tuple[Zone, ...]:
    """The zones of one job, cut to the time they share, in the order given. Raises TraceError."""
    zones: dict[str, Zone] = {}
    for number, path in enumerate(paths):
        told(number)
        zone = read_zone(path, dropped)
        if zone.name in zones:
            raise TraceError(
                f"zone {zone.name!r} is there twice", hint="give each zone once, by its own name"
            )
        zones[zone.name] = zone
    ticks = sorted({zone.tick_ms for zone in zones.values()})
    if len(ticks) > 1:
        words = " and ".join(f"{tick / 1000:g} s" for tick in ticks)
        raise TraceError(f"the zones have ticks of {words}", hint="replay zones of one tick together")
    return _together(tuple(zones.values()), dropped)


def read_zone(path: Path, dropped: Counter[str]) -> Zone:
    """One zone; what is unknown or left over is counted in `dropped`. Raises TraceError."""
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    if name in RESERVED_NAMES:
        raise TraceError(f"{path.name}: a zone cannot be called {name!r}", hint="rename the file")
    tick_s = _tick_s(path, name, dropped)
    first, up = _availability(path, dropped)
    if tick_s < JOIN_BELOW_S:
        skipped = -first % JOIN
        whole_ticks = max(0, len(up) - skipped) // JOIN
        dropped[REST] += len(up) - whole_ticks * JOIN
        joined = (up[at : at + JOIN] for at in range(skipped, skipped + whole_ticks * JOIN, JOIN))
        first, up, tick_s = (first + skipped) // JOIN, bytes(map(min, joined)), tick_s * JOIN
    if not up:
        raise TraceError(f"{path.name}: the record holds no whole tick", hint="give a longer record")
    return Zone(name, round(tick_s * 1000), first, up)


def _availability(path: Path, dropped: Counter[str]) -> tuple[int, bytes]:
    """The first tick that is recorded, and the ticks from there on."""
    up = bytearray()
    first, start_before = 0, 0
    columns = {"start_tick": whole, "ticks": _above_zero, "available": whole}
    for line, (start, ticks, available) in read_table(path, columns):
        if not up:
            first = start_before = start
        check_order(path, line, start_before, start, "start_tick")
        hole = start - first - len(up)
        if hole < 0:
            message = f"{path.name}:{line}: tick {start} is in the row above too"
            raise TraceError(message, hint="the rows of a zone do not overlap")
        if hole + ticks + len(up) > TICKS_MAX:
            message = f"{path.name}:{line}: more than {TICKS_MAX:,} ticks"
            raise TraceError(message, hint="replay a part of it")
        dropped[HOLES] += hole
        up += bytes(hole) + bytes([available > 0]) * ticks
        start_before = start
    if not up:
        raise TraceError(f"{path.name}: no rows", hint="a zone's record is start_tick, ticks, available")
    return first, bytes(up)


def _above_zero(text: str) -> int:
    """A whole number above 0. Raises ValueError."""
    value = whole(text)
    if value == 0:
        raise ValueError("not above 0")
    return value


def _tick_s(path: Path, name: str, dropped: Counter[str]) -> float:
    """Seconds of a tick: of this zone, of its collection where all agree, or the default, counted."""
    index = path.parent / INDEX
    alike: set[float] = set()
    if index.is_file() and {"trace", "gap_s"} <= set(head_of(index)):
        for line, (trace, gap_s) in read_table(index, {"trace": word, "gap_s": amount}):
            if not TICK_S_MIN <= gap_s <= TICK_S_MAX:
                message = f"{INDEX}:{line}: gap_s is {gap_s:g}"
                raise TraceError(message, hint=f"a tick takes {TICK_S_MIN:g} to {TICK_S_MAX:g} s")
            if trace == name:
                return float(gap_s)
            if trace.partition("_")[0] == name.partition("_")[0]:
                alike.add(float(gap_s))
    if len(alike) == 1:
        return alike.pop()
    dropped[GUESSED] += 1
    return TICK_S_DEFAULT


def _together(zones: tuple[Zone, ...], dropped: Counter[str]) -> tuple[Zone, ...]:
    begin = max(zone.first for zone in zones)
    end = min(zone.first + len(zone.up) for zone in zones)
    if end <= begin:
        raise TraceError("the zones have no tick in common", hint="give zones that were recorded together")
    dropped[OUTSIDE] += sum(len(zone.up) for zone in zones) - len(zones) * (end - begin)
    return tuple(
        zone._replace(first=begin, up=zone.up[begin - zone.first : end - zone.first]) for zone in zones
    )
