"""The reader of zones: what it gives, what it counts, and that nothing broken passes."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from steersman.model.errors import TraceError
from steersman.sim.replay import spot_zones
from steersman.sim.replay.spot_zones import GUESSED, HOLES, OUTSIDE, REST, Zone, read_zone, read_zones

HEAD = "start_tick,ticks,available\n"
GOOD = HEAD + "0,2,1\n2,3,0\n5,1,4\n"


def written(folder: Path, text: str | bytes, name: str = "z.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(*paths: Path) -> tuple[tuple[Zone, ...], Counter[str]]:
    dropped: Counter[str] = Counter()
    return read_zones(paths, dropped, lambda _: None), dropped


@pytest.mark.parametrize("packed", [False, True])
def test_runs_become_ticks_and_a_count_of_instances_is_available(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, gzip.compress(GOOD.encode(), mtime=0) if packed else GOOD, "a.csv.gz")
    written(tmp_path, "trace,gap_s,more\na,195,x\n", "INDEX.csv")
    assert read(path) == ((Zone("a", 195_000, 0, bytes([1, 1, 0, 0, 0, 1])),), Counter())


def test_the_tick_comes_from_the_index_then_from_the_collection_then_it_is_counted(tmp_path: Path) -> None:
    written(tmp_path, "trace,gap_s\nx-1_a,300\nx-1_b,300\ny-2_a,195\ny-2_b,600\n", "INDEX.csv")
    ticks = {}
    for name in ("x-1_a", "x-1_c", "y-2_c", "w"):
        dropped: Counter[str] = Counter()
        zone = read_zone(written(tmp_path, GOOD, f"{name}.csv"), dropped)
        ticks[name] = (zone.tick_ms, dropped[GUESSED])
    assert ticks == {"x-1_a": (300_000, 0), "x-1_c": (300_000, 0), "y-2_c": (600_000, 1), "w": (600_000, 1)}


def test_an_index_of_something_else_tells_no_tick(tmp_path: Path) -> None:
    written(tmp_path, "name,seconds\nz,5\n", "INDEX.csv")
    assert read(written(tmp_path, GOOD))[1][GUESSED] == 1


@pytest.mark.parametrize("gap_s", ["0", "-5", "soon", "0.001", "1e9"])
def test_a_tick_without_sense_is_refused(tmp_path: Path, gap_s: str) -> None:
    written(tmp_path, f"trace,gap_s\nz,{gap_s}\n", "INDEX.csv")
    with pytest.raises(TraceError, match=r"INDEX\.csv:2: gap_s is"):
        read(written(tmp_path, GOOD))


def test_holes_are_closed_and_counted(tmp_path: Path) -> None:
    zones, dropped = read(written(tmp_path, HEAD + "0,2,1\n4,2,1\n"))
    assert zones[0].up == bytes([1, 1, 0, 0, 1, 1])
    assert dropped[HOLES] == 2


def test_probes_are_joined_by_fives_and_up_only_when_all_are(tmp_path: Path) -> None:
    written(tmp_path, "trace,gap_s\nz,32\n", "INDEX.csv")
    zones, dropped = read(written(tmp_path, HEAD + "0,9,1\n9,1,0\n10,7,1\n"))
    assert zones == (Zone("z", 160_000, 0, bytes([1, 0, 1])),)
    assert dropped[REST] == 2
    zones, dropped = read(written(tmp_path, HEAD + "3,9,1\n"))
    assert zones == (Zone("z", 160_000, 1, bytes([1])),)
    assert dropped[REST] == 4


def test_zones_are_cut_to_the_time_they_share(tmp_path: Path) -> None:
    one = written(tmp_path, HEAD + "0,6,1\n", "a.csv")
    two = written(tmp_path, HEAD + "2,9,0\n", "b.csv")
    zones, dropped = read(one, two)
    assert zones == (Zone("a", 600_000, 2, bytes([1] * 4)), Zone("b", 600_000, 2, bytes(4)))
    assert dropped[OUTSIDE] == 2 + 5


def test_zones_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "trace,gap_s\nz,600\ny,195\n", "INDEX.csv")
    one, two = written(tmp_path, GOOD), written(tmp_path, GOOD, "y.csv")
    with pytest.raises(TraceError, match="ticks of 195 s and 600 s"):
        read(one, two)
    with pytest.raises(TraceError, match="'z' is there twice"):
        read(one, one)
    with pytest.raises(TraceError, match="no tick in common"):
        read(one, written(tmp_path, HEAD + "6,1,1\n", "z2.csv"))


@pytest.mark.parametrize("name", ["on-demand.csv", ".csv"])
def test_a_zone_cannot_be_called_like_an_action(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="rename the file"):
        read(written(tmp_path, GOOD, name))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        (HEAD, "no rows"),
        ("start_tick,price_usd_h\n0,1.2\n", "no column 'ticks'"),
        (HEAD + "0,1\n", "z.csv:2: 2 fields where the head has 3"),
        (HEAD + "0,x,1\n", "z.csv:2: ticks is 'x'"),
        (HEAD + "-1,2,1\n", "z.csv:2: start_tick is '-1': below 0"),
        (HEAD + "0,0,1\n", "z.csv:2: ticks is '0': not above 0"),
        (HEAD + "0,2,-1\n", "z.csv:2: available is '-1': below 0"),
        (HEAD + "0,2,nan\n", "available is 'nan'"),
        (HEAD + "5,2,1\n0,2,1\n", "z.csv:3: start_tick goes back from 5 to 0"),
        (HEAD + "0,2,1\n0,2,1\n", "z.csv:3: tick 0 is in the row above too"),
        (HEAD + "0,5,1\n3,2,1\n", "z.csv:3: tick 3 is in the row above too"),
        (HEAD + "0,1000000000,1\n", "more than 20,000,000 ticks"),
        (HEAD + "0,1,1\n1000000000,1,1\n", "z.csv:3: more than 20,000,000 ticks"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], "cut off or damaged"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(TraceError) as refused:
        read(written(tmp_path, content))
    assert words in refused.value.message
    assert refused.value.hint


def test_a_record_shorter_than_a_tick_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "trace,gap_s\nz,30\n", "INDEX.csv")
    with pytest.raises(TraceError, match="no whole tick"):
        read(written(tmp_path, HEAD + "0,4,1\n"))


def test_a_long_record_is_read_whole(tmp_path: Path) -> None:
    rows = "".join(f"{at * 3},3,{at % 2}\n" for at in range(40_000))
    zones, dropped = read(written(tmp_path, HEAD + rows))
    assert len(zones[0].up) == 120_000
    assert sum(zones[0].up) == 60_000
    assert sum(dropped.values()) == 1
    assert spot_zones.TICKS_MAX > 10 * 120_000
